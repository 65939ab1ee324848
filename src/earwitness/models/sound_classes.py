"""What an encoder's frames sound like: a linear head over classes of sound, beside the encoder.

`classes.json` and `classes.safetensors` in an encoder's folder. The head sees the mean and the
maximum of frames, so it works alike on a whole recording and on one second of it. Computed in
numpy, whatever makes the frames.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from pydantic import Field, FiniteFloat, PositiveFloat, PositiveInt, model_validator

from earwitness.config import Strict
from earwitness.errors import CheckpointError
from earwitness.models.json_files import read_json, read_settings
from earwitness.models.sound_events import SoundEvent as SoundEvent

SETTINGS, WEIGHTS = "classes.json", "classes.safetensors"

PART_S = 1.28
"""length of the parts in which the highest probability is searched for; they overlap by half"""

WINDOW_S = 0.96
"""length of the stretch around a frame by which its events are found"""

GOES_ON = 0.25
"""an event lasts while its probability stays above this share of the threshold"""

_EDGE = 1e-3
"""how near to 0 and 1 a support may be, so that its logit stays finite"""

Frames = Callable[[Sequence[np.ndarray]], list[np.ndarray]]
"""mono waveforms -> the frames "N D" of each"""

Read = Callable[[Path], Mapping[str, np.ndarray]]
"""a safetensors file -> its tensors; raises CheckpointError"""


class ClassHeadConfig(Strict):
    """The classes: `labels` are our own, `names` AudioSet's, `sentences` describe each alone, and
    `words` are those by which a caption names it.
    """

    dim: PositiveInt
    """width of the encoder's frames"""
    labels: tuple[str, ...]
    names: tuple[str, ...]
    sentences: tuple[tuple[str, ...], ...]
    words: tuple[tuple[str, ...], ...]
    temperature: PositiveFloat = 1.0
    """calibrates the probabilities, on held-out recordings"""
    frame_rate: PositiveFloat = 6.25
    """frames per second"""
    calibration: tuple[FiniteFloat, FiniteFloat] = (1.0, 0.0)
    """slope and shift of the logit of a caption's support, which make it the chance that the
    caption is right, as measured on held-out recordings
    """
    least_score: float = Field(default=0.0, ge=0.0, le=1.0)
    """the answer is "no distinct sound" below this chance"""

    @model_validator(mode="after")
    def _one_each(self) -> "ClassHeadConfig":
        sizes = {len(self.labels), len(self.names), len(self.sentences), len(self.words)}
        if len(sizes) > 1 or not all(self.sentences):
            raise ValueError("expected a name, words and at least one sentence for each label")
        return self


class Heard(NamedTuple):
    """What a class head hears in waveforms: the probability of each class over the whole of each
    waveform, the highest in a part of it, and the frames that they come from.
    """

    whole: Float[np.ndarray, "B K"]
    parts: Float[np.ndarray, "B K"]
    frames: list[Float[np.ndarray, "N D"]]


@dataclass(frozen=True)
class SoundClassifier:
    """A class head over the frames that `frames` makes of waveforms at `sample_rate` Hz."""

    config: ClassHeadConfig
    weight: Float[np.ndarray, "K F"]
    bias: Float[np.ndarray, " K"]
    frames: Frames
    sample_rate: int

    @classmethod
    def load(
        cls, folder: Path, read: Read, frames: Frames, sample_rate: int
    ) -> "SoundClassifier | None":
        """The head in an encoder's folder, whose weights `read` reads; None if it has none.

        Raises:
            CheckpointError: one of its two files is missing or damaged, or does not fit the other.
        """
        path, weights = folder / SETTINGS, folder / WEIGHTS
        if not path.exists() and not weights.exists():
            return None
        config = read_settings(ClassHeadConfig, read_json(path), path)
        state = read(weights)
        classes, width = len(config.labels), 2 * config.dim
        shapes = {"linear.weight": (classes, width), "linear.bias": (classes,)}
        for name, shape in shapes.items():
            if name not in state:
                raise CheckpointError(f"{weights}: weight '{name}' is missing")
            if state[name].shape != shape:
                raise CheckpointError(
                    f"{weights}: weight '{name}' has shape {state[name].shape}, expected {shape}"
                )
            if not np.isfinite(state[name]).all():
                raise CheckpointError(
                    f"{weights}: weight '{name}' holds numbers that are not finite"
                )
        weight, bias = (state[name].astype(np.float32) for name in shapes)
        return cls(config, weight, bias, frames, sample_rate)

    @property
    def sentences(self) -> Sequence[Sequence[str]]:
        """For each class, the sentences that describe it alone."""
        return self.config.sentences

    @property
    def words(self) -> Sequence[frozenset[str]]:
        """For each class, the words by which a caption names it."""
        return self._words

    @cached_property
    def _words(self) -> list[frozenset[str]]:
        return [frozenset(words) for words in self.config.words]

    @property
    def least_score(self) -> float:
        """The chance of being right below which a caption is not worth saying."""
        return self.config.least_score

    def chance(self, support: float) -> float:
        """The chance that a caption is right whose sounds have the probability `support`.

        A logistic function of its logit (Platt, 1999), which keeps the order of captions.
        """
        slope, shift = self.config.calibration
        inside = min(max(support, _EDGE), 1 - _EDGE)
        return 1 / (1 + math.exp(-slope * math.log(inside / (1 - inside)) - shift))

    def probabilities(self, parts: Float[np.ndarray, "B N D"]) -> Float[np.ndarray, "B K"]:
        """The probability of each class over all frames of each part; they add up to 1."""
        pooled = np.concatenate([parts.mean(1), parts.max(1)], axis=1)
        logits = (pooled @ self.weight.T + self.bias) / self.config.temperature
        grown = np.exp(logits - logits.max(1, keepdims=True))
        return grown / grown.sum(1, keepdims=True)

    def heard(self, waveforms: Sequence[Float[np.ndarray, " _"]]) -> Heard:
        """Probabilities of classes in each waveform, and the frames that they come from."""
        whole: list[Float[np.ndarray, " K"]] = []
        parts: list[Float[np.ndarray, " K"]] = []
        size = max(1, round(PART_S * self.config.frame_rate))
        frames = self.frames(waveforms)
        for h in frames:
            whole.append(self.probabilities(h[None])[0])
            pieces = h[None] if len(h) <= size else _windows(h, size)[:: size // 2]
            parts.append(self.probabilities(pieces).max(0))
        return Heard(np.stack(whole), np.stack(parts), frames)

    def span(
        self, h: Float[np.ndarray, "N D"], named: Bool[np.ndarray, " K"]
    ) -> tuple[float, float] | None:
        """When the sounds of the classes `named` start and end in a clip's frames, in seconds; None
        where none of them is heard with certainty.
        """
        labels = {self.config.labels[k] for k in np.flatnonzero(named)}
        own = [event for event in self.events_of(h) if event.label in labels]
        return (min(e.start_s for e in own), max(e.end_s for e in own)) if own else None

    def events(self, waveform: Float[np.ndarray, " T"], threshold: float = 0.5) -> list[SoundEvent]:
        """The events of a waveform in order of their start: runs of frames where a class has at
        least `threshold` in the stretch around them. Borders are those of frames.
        """
        return self.events_of(self.frames([waveform])[0], threshold)

    def events_of(self, h: Float[np.ndarray, "N D"], threshold: float = 0.5) -> list[SoundEvent]:
        """The events of a clip's frames."""
        size = max(1, round(WINDOW_S * self.config.frame_rate))
        before, after = size // 2, size - 1 - size // 2
        # The first and last frames are repeated, so that each frame is the middle of a window.
        ends = np.repeat(h[:1], before, axis=0), np.repeat(h[-1:], after, axis=0)
        by_frame = self.probabilities(_windows(np.concatenate([ends[0], h, ends[1]]), size))
        classes = np.flatnonzero(by_frame.max(0) >= threshold)
        found = [event for k in classes for event in self._runs(int(k), by_frame[:, k], threshold)]
        return sorted(found, key=lambda event: (event.start_s, -event.probability))

    def _runs(self, k: int, by_frame: Float[np.ndarray, " N"], least: float) -> list[SoundEvent]:
        goes_on = by_frame >= GOES_ON * least
        edges = np.diff(np.concatenate([[False], goes_on, [False]]).astype(np.int8))
        starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
        rate, names = self.config.frame_rate, (self.config.names[k], self.config.labels[k])
        return [
            SoundEvent(*names, start / rate, end / rate, float(by_frame[start:end].max()))
            for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
            if by_frame[start:end].max() >= least
        ]


def _windows(h: Float[np.ndarray, "N D"], size: int) -> Float[np.ndarray, "W size D"]:
    """All stretches of `size` frames."""
    return np.lib.stride_tricks.sliding_window_view(h, size, axis=0).transpose(0, 2, 1)
