"""Training on several processes: who prepares data, mean losses, the model replicated (DDP) or
sharded (FSDP2).

`DDPModel` is Accelerate's own way: one process, or one whole copy of the model per process.
`FSDPModel` is torch's `fully_shard`: each process holds a shard of every weight, gradient and
optimizer state. Accelerate's own FSDP does not run on CPU and cannot hold the scalars that LAMB
learns (beta, the temperature), so it is not used.
"""

import copy
import os
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Shaped
from safetensors.torch import save_file
from torch import Tensor, nn

from earwitness.errors import ConfigError, TrainingError
from earwitness.models.weights import read_weights

PATIENCE = timedelta(hours=6)
"""how long a process waits for another: caches are made, and models validated, by one of them"""

Losses = dict[str, Tensor]


def processes() -> int:
    """How many processes train together, as torchrun or `accelerate launch` started them."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def main_process_first() -> Generator[None]:
    """Inside, the main process goes ahead while the others wait at the entrance.

    So it makes the caches on disk alone, and the others find them.
    """
    if processes() == 1:
        yield
        return
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
    with state.main_process_first():
        yield


def check_launch() -> None:
    """Raises ConfigError if `accelerate launch` asks for FSDP, which the recipe decides."""
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        raise ConfigError(
            "the accelerate config asks for FSDP; weights are sharded with fit.shard = true in the "
            "recipe: leave FSDP out of the accelerate config"
        )


def means(accelerator: Any, losses: Losses, total: Float[Tensor, ""]) -> dict[str, float]:
    """The losses and their `total`, each the mean over all processes: one transfer for all."""
    values = torch.stack([loss.detach().float() for loss in (*losses.values(), total)])
    listed = accelerator.reduce(values, "mean").tolist()
    return dict(zip((*losses, "total"), listed, strict=True))


def share_of_all(count: Shaped[Tensor, ""]) -> Tensor:
    """`count` here over its mean over all processes: the weight of a local mean in the global one.

    The mean over processes of (local mean * this weight) is the mean over all counted things.
    """
    total = count.detach().clone().float()
    dist.all_reduce(total)
    return count * dist.get_world_size() / total.clamp(min=1)


class DDPModel:
    """A whole copy of the model on each process, gradients averaged (DDP); or a single process."""

    def __init__(self, accelerator: Any, model: nn.Module, optimizer: Any) -> None:
        self.accelerator = accelerator
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        accelerator.register_save_state_pre_hook(_keep_trained)
        accelerator.register_load_state_pre_hook(_load_trained)

    def __call__(self, batch: Any) -> Losses:
        """The losses of the local batch."""
        return self.model(batch)

    def step(self, clip_norm: float) -> None:
        """Moves the weights by their gradients."""
        if clip_norm:
            self.accelerator.clip_grad_norm_(self.model.parameters(), clip_norm)
        self.optimizer.step()

    def whole(self) -> nn.Module:
        """The model with all its weights, on the main process."""
        return self.accelerator.unwrap_model(self.model)

    def offload(self) -> None:
        """Nothing: the model stays where it is."""

    def save(self, folder: Path) -> None:
        """Nothing: Accelerate's own checkpoint holds all."""

    def load(self, folder: Path) -> None:
        """Nothing, likewise."""


class FSDPModel:
    """A shard of each weight on each process (FSDP2); whole layers are gathered as they are used.

    Scalars stay whole everywhere. The main process keeps a second model in main memory, which
    `whole` fills, for validation and saving.
    """

    def __init__(self, accelerator: Any, model: nn.Module) -> None:
        self.accelerator, self.model = accelerator, model
        self.twin = copy.deepcopy(model) if accelerator.is_main_process else None
        self.scalars = [p for p in model.parameters() if p.ndim == 0]
        shard(model, accelerator.device, self.scalars)
        self.optimizer: Any = None

    def parameters(self) -> list[nn.Parameter]:
        """What is trained."""
        return [p for p in self.model.parameters() if p.requires_grad]

    def __call__(self, batch: Any) -> Losses:
        """The losses of the local batch."""
        with self.accelerator.autocast():
            return self.model(batch)

    def step(self, clip_norm: float) -> None:
        """Moves the weights by their gradients; those of scalars are averaged here."""
        for scalar in self.scalars:
            if scalar.grad is not None:
                dist.all_reduce(scalar.grad)
                scalar.grad /= dist.get_world_size()
        if clip_norm:
            self._clip(clip_norm)
        self.optimizer.step()

    @torch.no_grad()
    def whole(self) -> nn.Module | None:
        """The model with all its weights, on the main process; None on the others, which must call
        it too.
        """
        trained = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        target = dict(self.twin.named_parameters()) if self.twin else {}
        for name, parameter in trained:
            full = _full(parameter)
            if self.twin:
                target[name].copy_(full)
        if self.twin is None:
            return None
        buffers = dict(self.twin.named_buffers())
        for name, buffer in self.model.named_buffers():
            buffers[name].copy_(buffer)
        return self.twin.to(self.accelerator.device)

    def offload(self) -> None:
        """Takes the whole model off the main process's GPU again."""
        if self.twin:
            self.twin.cpu()

    def save(self, folder: Path) -> None:
        """This process's shard of the trained weights, buffers and optimizer states."""
        own = {k: _local(v).detach().cpu().clone() for k, v in self._tensors().items()}
        save_file(own, folder / self._name(), metadata={"format": "pt"})

    def load(self, folder: Path) -> None:
        """Restores what `save` wrote, bit for bit."""
        stored = read_weights(folder / self._name())
        for name, parameter in self.model.named_parameters():
            if f"exp_avg.{name}" in stored:
                self.optimizer.state[parameter] = {
                    "step": torch.zeros(()),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }
        expected = self._tensors()
        if stored.keys() != expected.keys():
            odd = sorted(stored.keys() ^ expected.keys())[0]
            raise TrainingError(f"{folder}: the checkpoint is of another model ('{odd}')")
        with torch.no_grad():
            for name, tensor in expected.items():
                _local(tensor).copy_(stored[name])

    def _name(self) -> str:
        return f"share-{dist.get_rank()}-of-{dist.get_world_size()}.safetensors"

    def _tensors(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {f"buffer.{k}": v for k, v in self.model.named_buffers()}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                found[f"weight.{name}"] = parameter
                for key, value in self.optimizer.state.get(parameter, {}).items():
                    found[f"{key}.{name}"] = value
        return found

    def _clip(self, clip_norm: float) -> None:
        # torch's own function takes no list of both sharded and whole tensors.
        grads = [p.grad for p in self.parameters() if p.grad is not None]
        sharded = [g for g in grads if hasattr(g, "full_tensor")]
        whole = [g for g in grads if not hasattr(g, "full_tensor")]
        norms = [torch.nn.utils.get_total_norm(part) for part in (sharded, whole) if part]
        norm = torch.stack([_full(n) for n in norms]).norm()
        for grad in grads:
            _local(grad).mul_((clip_norm / (norm + 1e-6)).clamp(max=1.0))


def trained_names(model: nn.Module) -> set[str]:
    """Names in the state dict of what training changes: trained weights, and buffers."""
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    return trained | (model.state_dict().keys() & {name for name, _ in model.named_buffers()})


def _keep_trained(models: list[nn.Module], weights: list[Any], folder: Any) -> None:
    """Frozen weights are in their own folders already: a checkpoint holds none."""
    from accelerate.utils import extract_model_from_parallel

    for place, wrapped in enumerate(models):
        model = extract_model_from_parallel(wrapped)
        kept = trained_names(model)
        weights[place] = {k: v for k, v in model.state_dict().items() if k in kept}


def _load_trained(models: list[nn.Module], folder: Any) -> None:
    from accelerate.utils import extract_model_from_parallel

    for wrapped in models:
        model = extract_model_from_parallel(wrapped)
        path = Path(folder) / "pytorch_model.bin"
        state = torch.load(path, map_location="cpu", weights_only=True)
        kept = trained_names(model)
        if missing := sorted(kept - state.keys()):
            raise TrainingError(f"{path}: the checkpoint is of another model ('{missing[0]}')")
        model.load_state_dict({name: state[name] for name in kept}, strict=False)
    models.clear()


def shard(model: nn.Module, device: torch.device, scalars: list[nn.Parameter]) -> None:
    """Shards the layers of language models one by one, then the rest as one.

    Raises:
        ConfigError: a weight is quantized.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point():
            raise ConfigError(
                f"fit.shard: the quantized weight {name} cannot be sharded over processes; "
                "load the decoder unquantized, or leave fit.shard out"
            )
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for scalar in scalars:
        scalar.data = scalar.data.to(device)
    layers = {name for m in model.modules() for name in getattr(m, "_no_split_modules", None) or ()}
    for module in model.modules():
        if type(module).__name__ in layers:
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh, ignored_params=set(scalars))


def _full(tensor: Any) -> Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def _local(tensor: Any) -> Tensor:
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
