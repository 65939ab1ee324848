"""Settings of the training loop: the section `[fit]` of every recipe."""

from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from earwitness.config import Strict

Tracker = Literal["tensorboard", "wandb"]


class FitConfig(Strict):
    """Settings of the loop. Defaults follow LAMB (arXiv 2601.04658, fine-tuning) where it states
    them.
    """

    seed: NonNegativeInt = 0
    epochs: PositiveInt = 30
    batch_size: PositiveInt = 8
    """clips per step and process"""
    accumulate: PositiveInt = 1
    """steps whose gradients are summed before the weights move"""
    learning_rate: PositiveFloat = 3e-6
    learning_rates: dict[str, PositiveFloat] = {}
    """other rates for parts of the model, by the name of the part (`prefix`, `decoder`, `guide`,
    `aligner`, `encoder`, `guide.beta`, ...)"""
    weight_decay: NonNegativeFloat = 1e-6
    betas: tuple[float, float] = (0.9, 0.999)
    warmup_epochs: NonNegativeFloat = 2.0
    """epochs of linear warm-up; a half cosine to zero follows"""
    clip_norm: NonNegativeFloat = 1.0
    """largest gradient norm; 0 turns clipping off"""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    ema: float = Field(default=0.0, ge=0.0, lt=1.0)
    """decay of the averaged weights that are validated and saved; 0 for none"""
    shard: bool = False
    """shards weights, gradients and optimizer states over the processes (FSDP2)"""
    bucket: NonNegativeInt = 0
    """batches hold clips of similar length, sorted within this many shuffled steps; 0: no order"""
    workers: NonNegativeInt = 0
    """processes that prepare batches"""
    prefetch: PositiveInt = 4
    """batches that each of them prefetches"""
    trackers: tuple[Tracker, ...] = ("tensorboard",)
    """where else losses and scores go; W&B follows its own variables, such as WANDB_MODE"""
    compile: bool = False
    """compiles the model (torch.compile): a slow start, faster steps; for GPUs"""
    fit_memory: bool = False
    """before training, tries the longest batch on the GPU; if it does not fit, turns gradient
    checkpointing on, then halves `batch_size` and doubles `accumulate` until it does"""
    patience: NonNegativeInt = 0
    """stops after this many validations without a better score; 0: never"""
    validate_every: PositiveInt = 1
    """epochs between validations"""
    save_every: NonNegativeInt = 200
    """weight updates between resumable checkpoints; 0 saves at the end of each epoch only"""
    threads: NonNegativeInt = 0
    """torch threads; 0 leaves the default"""

    @property
    def saved_dtype(self) -> torch.dtype | None:
        """Number format of saved weights: half precision if training used a short format."""
        return None if self.precision == "fp32" else torch.float16


FREE_KEYS = {"workers", "prefetch", "trackers", "threads", "epochs", "patience", "compile"}
"""settings that may change between a stop and the resume"""


def fixed_settings(config: FitConfig | None = None, processes: int = 1) -> dict[str, Any]:
    """What must not change between a stop and the resume; without a config, the defaults."""
    found = (config or FitConfig()).model_dump(mode="json", exclude=FREE_KEYS)
    return found | {"processes": processes}


class Selection(NamedTuple):
    """Which validation score chooses the best weights, and whether it should be high or low."""

    score: str
    best: Literal["highest", "lowest"] = "highest"

    def better(self, new: float, old: float) -> bool:
        """Whether `new` beats `old`; NaN never does."""
        return new > old if self.best == "highest" else new < old
