"""The one training loop, for every stage: Accelerate, named losses, exact resume.

A model trained here is a module whose call takes a batch and returns named losses; the recipe
weights them. On several processes (torchrun, `accelerate launch`) each trains on its own batches;
the main process alone validates, prints and writes.
"""

import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import Dataset

from earwitness.errors import ConfigError, TrainingError
from earwitness.training.batches import Collate, EpochBatches, epoch_batches, training_loader
from earwitness.training.distributed import (
    PATIENCE,
    DDPModel,
    FSDPModel,
    Losses,
    check_launch,
    means,
)
from earwitness.training.memory import fitted_to_memory
from earwitness.training.optimizer import averaged, parameter_groups, warmup_cosine
from earwitness.training.progress import TrainingBar
from earwitness.training.run_log import RunLog, Save, check_trackers
from earwitness.training.settings import FitConfig, Selection, fixed_settings

Validate = Callable[[nn.Module], dict[str, float]]


def fit(
    model: nn.Module,
    data: Dataset[Any],
    collate: Collate,
    loss_weights: dict[str, float],
    config: FitConfig,
    run: Path,
    *,
    validate: Validate,
    save: Save,
    select: Selection,
    sample_weights: Float[np.ndarray, " items"] | None = None,
) -> dict[str, float]:
    """The validation scores of the best weights, which are in `run`/best; the last ones are in
    `run`/last.

    `model(batch)` returns named losses; their weighted sum is minimized (a name without a weight
    has weight 1). `data[(index, epoch)]` is one item. `validate` returns scores; from these,
    `select` chooses the best. A stopped run resumes from its last checkpoint, with the same batches
    and random numbers; `data` must then draw random numbers only from its (index, epoch).

    Raises:
        TrainingError: a loss is not a finite number, every loss has weight 0, the data holds fewer
            items than a batch, or the checkpoints in `run` belong to other settings.
    """
    if config.fit_memory:
        config = fitted_to_memory(model, data, collate, loss_weights, config, run)
    accelerator = _accelerator(config, loss_weights)
    batches = epoch_batches(data, config, accelerator.num_processes, sample_weights)
    loader = accelerator.prepare(training_loader(data, batches, collate, config))
    ema = averaged(model, config.ema, accelerator.device)
    _detach_unweighted(model, loss_weights)
    parallel = _parallel(accelerator, model, config)
    if config.compile:
        model.compile()
    schedule = _schedule(parallel, config, math.ceil(len(loader) / config.accumulate))
    accelerator.register_for_checkpointing(*([schedule] if ema is None else [schedule, ema]))
    settings = fixed_settings(config, accelerator.num_processes)
    log = RunLog(run, select, settings, fixed_settings(), accelerator, parallel)
    start, done = log.resume(config.trackers)
    _restore_rates(parallel, schedule)

    bar = TrainingBar(config.epochs, len(loader), start, done, accelerator.is_main_process)
    with _without_denormals(), bar:
        loop = _Loop(
            model, loss_weights, config, accelerator, batches, loader, parallel, schedule, ema,
            log, bar,
        )  # fmt: skip
        for epoch in range(start, config.epochs):
            if config.patience and log.stale >= config.patience:
                bar.say(f"stopped: {log.stale} validations without a better {select.score}")
                break
            loop.train(epoch, done)
            done = 0
            if (epoch + 1) % config.validate_every == 0 or epoch + 1 == config.epochs:
                loop.validate(epoch + 1, validate, save)
            log.checkpoint(epoch + 1, 0)
    accelerator.end_training()
    return log.best_scores if accelerator.is_main_process else {}


@contextmanager
def _without_denormals() -> Generator[None]:
    """Numbers below 1e-38 count as 0: gradients of a model that hardly errs hold many of them, and
    a CPU takes several times as long for each.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@dataclass(frozen=True)
class _Loop:
    """What the steps of a run share."""

    model: nn.Module
    loss_weights: dict[str, float]
    config: FitConfig
    accelerator: Any
    batches: EpochBatches
    loader: Any
    parallel: DDPModel | FSDPModel
    schedule: LambdaLR
    ema: AveragedModel | None
    log: RunLog
    bar: TrainingBar

    def train(self, epoch: int, done: int) -> None:
        """One epoch, without its first `done` batches."""
        self.batches.epoch = epoch
        self.model.train()
        skip = self.accelerator.skip_first_batches
        for batch in skip(self.loader, done) if done else self.loader:
            values = self._step(batch)
            done += 1
            self.bar.advance(values, self.config.batch_size * self.accelerator.num_processes)
            if self.accelerator.sync_gradients:
                self.log.losses(values, float(self.schedule.get_last_lr()[0]))
                if self.config.save_every and self.log.step % self.config.save_every == 0:
                    self.log.checkpoint(epoch, done)

    def _step(self, batch: Any) -> dict[str, float]:
        """The losses of a batch; adds its gradients and updates the weights when due."""
        with self.accelerator.accumulate(self.parallel.model):
            losses = self.parallel(batch)
            total = weighted_sum(losses, self.loss_weights)
            values = means(self.accelerator, losses, total)
            _check_finite(values, self.log.step + 1)
            self.accelerator.backward(total)
            if self.accelerator.sync_gradients:
                self.parallel.step(self.config.clip_norm)
                self.schedule.step()
                if self.ema is not None:
                    self.ema.update_parameters(self.model)
                self.parallel.optimizer.zero_grad()
        return values

    def validate(self, epoch: int, validate: Validate, save: Save) -> None:
        """Scores after `epoch` epochs, on the main process, and the weights saved."""
        self.bar.say("validating")
        trained = self.parallel.whole() if self.ema is None else self.ema.module
        if self.accelerator.is_main_process and trained is not None:
            with torch.inference_mode():
                scores = validate(trained.eval())
            self.log.scores(epoch, scores, trained, save)
            self.bar.scores(epoch, scores)
        self.parallel.offload()
        self.log.agree()


def _schedule(parallel: DDPModel | FSDPModel, config: FitConfig, updates: int) -> LambdaLR:
    """The learning rates over the run; an epoch has `updates` of the weights."""
    optimizer = getattr(parallel.optimizer, "optimizer", parallel.optimizer)
    factor = warmup_cosine(config.warmup_epochs * updates, config.epochs * updates)
    return LambdaLR(optimizer, factor)


def _restore_rates(parallel: DDPModel | FSDPModel, schedule: LambdaLR) -> None:
    """The learning rates of the schedule; shards are saved without the optimizer's settings."""
    for group, rate in zip(parallel.optimizer.param_groups, schedule.get_last_lr(), strict=True):
        group["lr"] = rate


def weighted_sum(losses: Losses, weights: dict[str, float]) -> Tensor:
    """Sum of `losses` times their `weights`; a loss that `weights` does not name counts once.

    A weight of 0 drops the term entirely, so that not even a NaN comes through.
    """
    terms = [
        weights.get(name, 1.0) * loss for name, loss in losses.items() if weights.get(name, 1.0)
    ]
    if not terms:
        raise TrainingError(
            f"every loss ({', '.join(losses)}) has weight 0; at least one needs a nonzero weight"
        )
    return torch.stack(terms).sum()


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
    # Each process draws different dropout masks; the main one those of a run on one process.
    set_seed(config.seed, device_specific=True)
    return accelerator


def _parallel(accelerator: Any, model: nn.Module, config: FitConfig) -> DDPModel | FSDPModel:
    if not config.shard or accelerator.num_processes == 1:
        return DDPModel(accelerator, model, torch.optim.AdamW(_groups(model, config)))
    if config.ema or config.precision == "fp16":
        raise ConfigError(
            "fit.shard works with neither fit.ema nor fit.precision = 'fp16'; use 'bf16' or 'fp32'"
        )
    sharded = FSDPModel(accelerator, model)
    # Scalars stay whole: one fused update cannot take them and shards of matrices together.
    sharded.optimizer = torch.optim.AdamW(_groups(model, config), foreach=False)
    return sharded


def _groups(model: nn.Module, config: FitConfig) -> list[dict[str, Any]]:
    groups = parameter_groups(
        model, config.weight_decay, config.learning_rate, config.learning_rates
    )
    return [{**group, "betas": config.betas} for group in groups]


def _detach_unweighted(model: nn.Module, weights: dict[str, float]) -> None:
    """Losses of weight 0 leave the graph inside the model, where DDP looks for unused weights."""

    def detach(_module: nn.Module, _inputs: Any, losses: Losses) -> Losses:
        return {
            name: loss if weights.get(name, 1.0) else loss.detach() for name, loss in losses.items()
        }

    if 0 in weights.values():
        model.register_forward_hook(detach)


def _check_finite(values: dict[str, float], step: int) -> None:
    """The same answer on all processes, as `values` are means over them."""
    if math.isfinite(values["total"]):
        return
    bad = [name for name, value in values.items() if name != "total" and not math.isfinite(value)]
    raise TrainingError(
        f"step {step}: the loss {', '.join(bad) or 'their sum'} is not a finite number; "
        "lower fit.learning_rate or fit.clip_norm, or use fit.precision = 'fp32'"
    )
