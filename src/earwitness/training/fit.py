"""The one training loop, for every stage: Accelerate, named losses, exact resume.

A model trained here is a module whose call takes a batch and returns named losses; the recipe
weighs them.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from earwitness.config import Strict
from earwitness.errors import TrainingError
from earwitness.training.progress import TrainingBar
from earwitness.training.run_log import Losses, RunLog, Save


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
    workers: NonNegativeInt = 0
    """processes that prepare batches"""
    validate_every: PositiveInt = 1
    """epochs between validations"""
    save_every: NonNegativeInt = 200
    """weight updates between resumable checkpoints; 0 saves at the end of each epoch only"""
    threads: NonNegativeInt = 0
    """torch threads; 0 leaves the default"""


_FREE = {"workers", "threads", "epochs"}
"""settings that may change between a stop and the resume"""

Validate = Callable[[nn.Module], dict[str, float]]


class EpochBatches:
    """Batches of indices, another order each epoch, the same for a given seed and epoch.

    With `weights`, indices are drawn with replacement in proportion to them.
    """

    def __init__(
        self, size: int, batch_size: int, seed: int, weights: np.ndarray | None = None
    ) -> None:
        self.size, self.batch_size, self.seed = size, batch_size, seed
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
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            yield [(int(i), self.epoch) for i in order[start : start + self.batch_size]]


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
    accelerator = _accelerator(config, run)
    batches = EpochBatches(_size(data, config), config.batch_size, config.seed, sample_weights)
    loader = _loader(data, batches, collate, config)
    optimizer = torch.optim.AdamW(
        _parameter_groups(model, config.weight_decay), lr=config.learning_rate, betas=config.betas
    )
    per_epoch = math.ceil(len(batches) / accelerator.num_processes / config.accumulate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, _warmup_cosine(config.warmup_epochs * per_epoch, config.epochs * per_epoch)
    )
    ema = _averaged(model, config.ema, accelerator.device)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    accelerator.register_for_checkpointing(*([schedule] if ema is None else [schedule, ema]))
    log = RunLog(run, select, config.model_dump(mode="json", exclude=_FREE), accelerator)
    epoch, done = log.resume()

    with TrainingBar(config.epochs, len(loader), epoch, done, accelerator.is_main_process) as bar:
        while epoch < config.epochs:
            batches.epoch = epoch
            model.train()
            rest = accelerator.skip_first_batches(loader, done) if done else loader
            for batch in rest:
                with accelerator.accumulate(model):
                    losses = model(batch)
                    total = weighted_sum(losses, loss_weights)
                    _check_finite(losses, total, log.step + 1)
                    accelerator.backward(total)
                    if accelerator.sync_gradients and config.clip_norm:
                        accelerator.clip_grad_norm_(model.parameters(), config.clip_norm)
                    optimizer.step()
                    if accelerator.sync_gradients:
                        schedule.step()
                        if ema is not None:
                            ema.update_parameters(accelerator.unwrap_model(model))
                    optimizer.zero_grad()
                done += 1
                bar.advance(losses, total, config.batch_size * accelerator.num_processes)
                if accelerator.sync_gradients:
                    log.losses(losses, total, float(schedule.get_last_lr()[0]))
                    if config.save_every and log.step % config.save_every == 0:
                        log.checkpoint(epoch, done)
            epoch, done = epoch + 1, 0
            due = epoch % config.validate_every == 0 or epoch == config.epochs
            if due and accelerator.is_main_process:
                bar.say("validating")
                trained = accelerator.unwrap_model(model) if ema is None else ema.module
                with torch.inference_mode():
                    scores = validate(trained.eval())
                log.scores(epoch, scores, trained, save)
                bar.scores(epoch, scores)
            log.checkpoint(epoch, 0)
    accelerator.end_training()
    return log.best_scores


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


def _size(data: Any, config: FitConfig) -> int:
    if len(data) < config.batch_size:
        raise TrainingError(
            f"{len(data)} training items are fewer than one batch of {config.batch_size}"
        )
    return len(data)


def _accelerator(config: FitConfig, run: Path) -> Any:
    from accelerate import Accelerator
    from accelerate.utils import set_seed

    if config.threads:
        torch.set_num_threads(config.threads)
    set_seed(config.seed)
    return Accelerator(
        mixed_precision={"fp32": "no"}.get(config.precision, config.precision),
        gradient_accumulation_steps=config.accumulate,
        cpu=not torch.cuda.is_available(),
        log_with="tensorboard",
        project_dir=run,
    )


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
        generator=torch.Generator().manual_seed(config.seed),
    )


def _check_finite(losses: Losses, total: Tensor, step: int) -> None:
    if torch.isfinite(total):
        return
    bad = [name for name, loss in losses.items() if not torch.isfinite(loss)] or ["their sum"]
    raise TrainingError(
        f"step {step}: the loss {', '.join(bad)} is not a finite number; "
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
