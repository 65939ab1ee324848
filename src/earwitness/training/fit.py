"""The one training loop, for every stage: Accelerate, named losses, exact resume.

A model trained here is a module whose call takes a batch and returns named losses; the recipe
weighs them. On several processes (torchrun, `accelerate launch`) each trains on its own batches;
the main process alone validates, prints and writes.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from earwitness.config import Strict
from earwitness.errors import ConfigError, TrainingError
from earwitness.training.distributed import (
    PATIENCE,
    Copied,
    Losses,
    Spread,
    check_launch,
    means,
    others_follow,
)
from earwitness.training.progress import TrainingBar
from earwitness.training.run_log import RunLog, Save, Tracker, check_trackers


class FitConfig(Strict):
    """Settings of the loop. Defaults follow LAMB (arXiv 2601.04658, fine-tuning) where it states
    them.
    """

    seed: NonNegativeInt = 0
    epochs: PositiveInt = 30
    batch_size: PositiveInt = 8
    """clips a step and process"""
    accumulate: PositiveInt = 1
    """steps whose gradients are added before the weights move"""
    learning_rate: PositiveFloat = 3e-6
    weight_decay: NonNegativeFloat = 1e-6
    betas: tuple[float, float] = (0.9, 0.999)
    warmup_epochs: NonNegativeFloat = 2.0
    """epochs of linear warm-up; a half cosine to zero follows"""
    clip_norm: NonNegativeFloat = 1.0
    """largest gradient norm; 0 leaves gradients alone"""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    ema: float = Field(default=0.0, ge=0.0, lt=1.0)
    """decay of the averaged weights that are validated and saved; 0 for none"""
    shard: bool = False
    """spreads weights, gradients and optimizer states over the processes (FSDP2)"""
    bucket: NonNegativeInt = 0
    """batches hold clips of like length, sorted within this many shuffled steps; 0 for no order"""
    workers: NonNegativeInt = 0
    """processes that prepare batches"""
    prefetch: PositiveInt = 4
    """batches that each of them holds ready"""
    trackers: tuple[Tracker, ...] = ("tensorboard",)
    """who else is told losses and scores; W&B keeps to its own variables, such as WANDB_MODE"""
    validate_every: PositiveInt = 1
    """epochs between validations"""
    save_every: NonNegativeInt = 200
    """weight updates between resumable checkpoints; 0 saves at the end of each epoch only"""
    threads: NonNegativeInt = 0
    """torch threads; 0 leaves the default"""


_FREE = {"workers", "prefetch", "trackers", "threads", "epochs"}
"""settings that may change between a stop and the resume"""

Validate = Callable[[nn.Module], dict[str, float]]


@runtime_checkable
class Measured(Protocol):
    """Data that knows how long its items are, by index."""

    lengths: np.ndarray


class EpochBatches:
    """Batches of indices, another order each epoch, the same for a given seed and epoch.

    With `weights`, indices are drawn with replacement in proportion to them. With `lengths`, the
    shuffled indices are sorted by length within every `bucket` steps, and the steps shuffled again.
    A step is one batch for each of the `processes`.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        weights: np.ndarray | None = None,
        lengths: np.ndarray | None = None,
        bucket: int = 1,
        processes: int = 1,
    ) -> None:
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.lengths, self.bucket, self.processes = lengths, bucket, processes
        self.drop_last = True
        self.chances = None if weights is None else weights / weights.sum()
        self.epoch = 0

    def __len__(self) -> int:
        return max(1, self.size // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Batches of (index, epoch): a dataset that composes needs both."""
        rng = np.random.default_rng((self.seed, self.epoch))
        if self.chances is None:
            order = rng.permutation(self.size)
        else:
            order = rng.choice(self.size, size=self.size, p=self.chances)
        if self.lengths is not None:
            order = self._like_by_like(order, self.lengths, rng)
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            yield [(int(i), self.epoch) for i in order[start : start + self.batch_size]]

    def _like_by_like(
        self, order: np.ndarray, lengths: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        step = self.batch_size * self.processes
        window = step * self.bucket
        order = np.concatenate(
            [
                part[np.argsort(lengths[part], kind="stable")]
                for part in np.split(order, range(window, len(order), window))
            ]
        )
        whole = len(order) // step * step
        steps = order[:whole].reshape(-1, step)
        return np.concatenate([rng.permutation(steps).ravel(), order[whole:]])


def fit(
    model: nn.Module,
    data: Dataset,
    collate: Callable[[list[Any]], Any],
    loss_weights: dict[str, float],
    config: FitConfig,
    run: Path,
    *,
    validate: Validate,
    save: Save,
    select: str,
    sample_weights: np.ndarray | None = None,
) -> dict[str, float]:
    """The validation scores of the best weights, which lie in `run`/best; the last ones lie in
    `run`/last.

    `model(batch)` returns named losses; their weighted sum is minimised (a name without a weight
    weighs 1). `data[(index, epoch)]` is one item. `validate` returns scores; the highest `select`
    is best (a name that starts with '-' means the lowest). A run that was stopped goes on where its
    last checkpoint stands, with the same batches and random numbers as if it had not been stopped;
    `data` must then draw nothing at random but from its (index, epoch).

    Raises:
        TrainingError: a loss is not a number, every loss weighs 0, the data holds fewer items than
            a batch, or the checkpoints in `run` belong to other settings.
    """
    accelerator = _accelerator(config, loss_weights)
    others_follow()
    batches = _batches(data, config, accelerator.num_processes, sample_weights)
    loader = accelerator.prepare(_loader(data, batches, collate, config))
    ema = _averaged(model, config.ema, accelerator.device)
    _leave_out(model, loss_weights)
    spread = _spread(accelerator, model, config)
    updates = math.ceil(len(loader) / config.accumulate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        getattr(spread.optimizer, "optimizer", spread.optimizer),
        _warmup_cosine(config.warmup_epochs * updates, config.epochs * updates),
    )
    accelerator.register_for_checkpointing(*([schedule] if ema is None else [schedule, ema]))
    log = RunLog(run, select, _settings(config, accelerator), _settings(), accelerator, spread)
    epoch, done = log.resume(config.trackers)
    for group, rate in zip(spread.optimizer.param_groups, schedule.get_last_lr(), strict=True):
        # Shares are saved without the optimizer's settings.
        group["lr"] = rate

    with TrainingBar(config.epochs, len(loader), epoch, done, accelerator.is_main_process) as bar:
        while epoch < config.epochs:
            batches.epoch = epoch
            model.train()
            rest = accelerator.skip_first_batches(loader, done) if done else loader
            for batch in rest:
                with accelerator.accumulate(spread.model):
                    losses = spread(batch)
                    total = weighted_sum(losses, loss_weights)
                    values = means(accelerator, losses, total)
                    _check_finite(values, log.step + 1)
                    accelerator.backward(total)
                    if accelerator.sync_gradients:
                        spread.step(config.clip_norm)
                        schedule.step()
                        if ema is not None:
                            ema.update_parameters(model)
                        spread.optimizer.zero_grad()
                done += 1
                bar.advance(values, config.batch_size * accelerator.num_processes)
                if accelerator.sync_gradients:
                    log.losses(values, float(schedule.get_last_lr()[0]))
                    if config.save_every and log.step % config.save_every == 0:
                        log.checkpoint(epoch, done)
            epoch, done = epoch + 1, 0
            if epoch % config.validate_every == 0 or epoch == config.epochs:
                bar.say("validating")
                trained = spread.whole() if ema is None else ema.module
                if accelerator.is_main_process and trained is not None:
                    with torch.inference_mode():
                        scores = validate(trained.eval())
                    log.scores(epoch, scores, trained, save)
                    bar.scores(epoch, scores)
                spread.rest()
            log.checkpoint(epoch, 0)
    accelerator.end_training()
    return log.best_scores if accelerator.is_main_process else {}


def weighted_sum(losses: Losses, weights: dict[str, float]) -> Tensor:
    """Sum of `losses` times their `weights`; a loss that `weights` does not name counts once.

    A weight of 0 leaves the term out altogether, so that not even a not-a-number comes through.
    """
    terms = [
        weights.get(name, 1.0) * loss for name, loss in losses.items() if weights.get(name, 1.0)
    ]
    if not terms:
        raise TrainingError(f"every loss ({', '.join(losses)}) has weight 0; one must have another")
    return torch.stack(terms).sum()


def _batches(
    data: Any, config: FitConfig, processes: int, weights: np.ndarray | None
) -> EpochBatches:
    size = len(data)
    if size < config.batch_size * processes:
        each = f" on each of {processes} processes" if processes > 1 else ""
        raise TrainingError(
            f"{size} training items are fewer than one batch of {config.batch_size}{each}"
        )
    if config.bucket and not isinstance(data, Measured):
        raise ConfigError(
            "fit.bucket: the lengths of these items are not known, or all the same; "
            "only a manifest's clips can be put together by length"
        )
    lengths = data.lengths if config.bucket else None
    return EpochBatches(
        size, config.batch_size, config.seed, weights, lengths, config.bucket, processes
    )


def _accelerator(config: FitConfig, loss_weights: dict[str, float]) -> Any:
    from accelerate import Accelerator, DataLoaderConfiguration
    from accelerate.utils import (
        DistributedDataParallelKwargs,
        InitProcessGroupKwargs,
        set_seed,
    )

    check_launch()
    check_trackers(config.trackers)
    if config.threads:
        torch.set_num_threads(config.threads)
    accelerator = Accelerator(
        mixed_precision={"fp32": "no"}.get(config.precision, config.precision),
        gradient_accumulation_steps=config.accumulate,
        cpu=not torch.cuda.is_available(),
        dataloader_config=DataLoaderConfiguration(non_blocking=torch.cuda.is_available()),
        kwargs_handlers=[
            InitProcessGroupKwargs(timeout=PATIENCE),
            DistributedDataParallelKwargs(find_unused_parameters=0 in loss_weights.values()),
        ],
    )
    # Each process draws other dropout masks; the main one those of a run on one process.
    set_seed(config.seed, device_specific=True)
    return accelerator


def _settings(config: FitConfig | None = None, accelerator: Any = None) -> dict[str, Any]:
    """What must not change between a stop and the resume; without a config, the defaults."""
    found = (config or FitConfig()).model_dump(mode="json", exclude=_FREE)
    return found | {"processes": accelerator.num_processes if accelerator else 1}


def _spread(accelerator: Any, model: nn.Module, config: FitConfig) -> Copied | Spread:
    settings: dict[str, Any] = {"lr": config.learning_rate, "betas": config.betas}
    if not config.shard or accelerator.num_processes == 1:
        groups = _parameter_groups(model, config.weight_decay)
        return Copied(accelerator, model, torch.optim.AdamW(groups, **settings))
    if config.ema or config.precision == "fp16":
        raise ConfigError(
            "fit.shard goes with neither fit.ema nor fit.precision = 'fp16'; use 'bf16' or 'fp32'"
        )
    spread = Spread(accelerator, model)
    groups = _parameter_groups(model, config.weight_decay)
    # Scalars stay whole: one fused update cannot take them and shares of matrices together.
    spread.optimizer = torch.optim.AdamW(groups, foreach=False, **settings)
    return spread


def _leave_out(model: nn.Module, weights: dict[str, float]) -> None:
    """Losses of weight 0 leave the graph inside the model, where DDP looks for unused weights."""

    def detach(_module: nn.Module, _inputs: Any, losses: Losses) -> Losses:
        return {
            name: loss if weights.get(name, 1.0) else loss.detach() for name, loss in losses.items()
        }

    if 0 in weights.values():
        model.register_forward_hook(detach)


def _loader(
    data: Dataset, batches: EpochBatches, collate: Callable[[list[Any]], Any], config: FitConfig
) -> Any:
    # Without its own generator each new iterator would draw from the global one, and a resumed
    # epoch would go on with other dropout masks than an unbroken one.
    return DataLoader(
        data,
        batch_sampler=batches,  # type: ignore[arg-type]
        collate_fn=collate,
        num_workers=config.workers,
        multiprocessing_context="spawn" if config.workers else None,
        persistent_workers=config.workers > 0,
        prefetch_factor=config.prefetch if config.workers else None,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(config.seed),
    )


def _check_finite(values: dict[str, float], step: int) -> None:
    """The same answer on all processes, as `values` are means over them."""
    if math.isfinite(values["total"]):
        return
    bad = [name for name, value in values.items() if name != "total" and not math.isfinite(value)]
    raise TrainingError(
        f"step {step}: the loss {', '.join(bad) or 'their sum'} is not a finite number; "
        "lower fit.learning_rate or fit.clip_norm, or use fit.precision = 'fp32'"
    )


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay, vectors and scalars (biases, norms, beta) do not."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _warmup_cosine(warmup: float, total: int) -> Callable[[int], float]:
    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / max(1.0, warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1.0, total - warmup))))

    return factor


def _averaged(
    model: nn.Module, decay: float, device: torch.device
) -> torch.optim.swa_utils.AveragedModel | None:
    if not decay:
        return None
    average = torch.optim.swa_utils.get_ema_multi_avg_fn(decay)
    ema = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=average, use_buffers=True)
    return ema.to(device)
