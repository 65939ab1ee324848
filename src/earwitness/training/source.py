"""What a training source is: its settings in a recipe, and the items that it opens."""

from abc import abstractmethod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32
from torch.utils.data import Dataset

from earwitness.config import Strict
from earwitness.encoders.base import FrameEncoder

Item = dict[str, Any]
"""a caption's `text`, the number of its recording (`clip`), and `frames` or a `waveform`"""


class Splits(NamedTuple):
    """Training and validation items, and all training captions (for a new tokenizer)."""

    train: Dataset[Item]
    validation: Dataset[Item]
    captions: list[str]


class Opening(NamedTuple):
    """What a source may need to open: `encoder` is the folder of a trained encoder, `frozen` that
    encoder itself if its frames may be cached, `runs` the folder for caches.
    """

    encoder: Path | None
    sample_rate: int
    runs: Path
    seed: int
    frozen: FrameEncoder | None = None


class SourceConfig(Strict):
    """A recipe's `[source]`; each kind is a class of its own."""

    kind: str

    @abstractmethod
    def open(self, opening: Opening) -> Splits:
        """The items.

        Raises:
            DataError: files are missing, or a clip has no caption. ConfigError: frames are to be
                cached that differ each time.
        """


def cropped(
    waveform: Float32[np.ndarray, " T"],
    seconds: float,
    rate: int,
    crop: str,
    rng: np.random.Generator,
) -> Float32[np.ndarray, " t"]:
    """At most `seconds` of a waveform: its start, or with `crop` "random" any part of it."""
    extra = len(waveform) - round(seconds * rate)
    if extra <= 0:
        return waveform
    start = int(rng.integers(extra + 1)) if crop == "random" else 0
    return waveform[start : start + len(waveform) - extra]
