"""Weights as safetensors: written whole, loaded with every key and shape accounted for."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor, nn

from earwitness.errors import CheckpointError
from earwitness.io.atomic import replacing_path
from earwitness.models.json_files import read_json as read_json
from earwitness.models.json_files import read_settings as read_settings
from earwitness.models.json_files import write_json as write_json
from earwitness.models.tensors import check_inside, stored_tensors

_NUMBERS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
"""formats that weights are read in"""


def write_weights(path: Path, module: nn.Module, dtype: torch.dtype | None = None) -> None:
    """Writes the state of `module`, floating-point tensors as `dtype` where given."""
    state = {
        name: (value.to(dtype) if dtype and value.is_floating_point() else value).cpu().contiguous()
        for name, value in module.state_dict().items()
    }
    with replacing_path(path, CheckpointError) as draft:
        save_file(state, draft, metadata={"format": "pt"})


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors in `path`. Raises CheckpointError if it is missing, a link out of its folder, not
    a whole safetensors file, or holds something other than weights.
    """
    check_inside(path.parent, path)
    stored_tensors(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: damaged or not a safetensors file ({error})") from None


def load_weights(module: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Puts `state` into `module`, every key and shape accounted for.

    Raises:
        CheckpointError: naming the first key that is missing, unknown, of another shape, or not
            finite.
    """
    check_fit(module, state, source)
    module.load_state_dict(state, strict=True)


def check_fit(module: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Raises CheckpointError like `load_weights`; `module` may be on the device "meta"."""
    wanted = module.state_dict()
    for name, tensor in wanted.items():
        if name not in state:
            raise CheckpointError(f"{source}: weight '{name}' is missing")
        if state[name].shape != tensor.shape:
            raise CheckpointError(
                f"{source}: weight '{name}' has shape {tuple(state[name].shape)}, "
                f"expected {tuple(tensor.shape)}"
            )
        if state[name].dtype not in (_NUMBERS if tensor.is_floating_point() else (tensor.dtype,)):
            raise CheckpointError(
                f"{source}: weight '{name}' holds {state[name].dtype}, expected {tensor.dtype}"
            )
    unknown = sorted(set(state) - set(wanted))
    if unknown:
        raise CheckpointError(f"{source}: unknown weight '{unknown[0]}'")
    check_finite(state, source)


def check_finite(state: dict[str, Tensor], source: str) -> None:
    """Raises CheckpointError naming the first tensor of `state` that holds a number that is not
    finite.
    """
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{source}: weight '{name}' holds numbers that are not finite")
