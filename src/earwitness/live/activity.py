"""When something sounds: stretches of a stream that stand out from its background, as they end.

The background is a low quantile of the last 20 s of levels, so that a steady noise becomes part of
it and a bark over it still stands out.
"""

from collections import deque
from dataclasses import dataclass, field
from itertools import repeat
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from earwitness.audio.levels import SILENCE_DB, level_db

STEP_S = 0.1
"""length of the steps in which levels are measured"""

_BACKGROUND_STEPS = 200
_BACKGROUND_QUANTILE = 0.2
_LEAST_STEADY_S = 1.0
_FOLLOW = 0.2


class Stretch(NamedTuple):
    """Samples of a stream, from `start` up to `end`, that hold a sound or a part of a long one."""

    start: int
    end: int


@dataclass
class Activity:
    """Finds the stretches of a stream at `rate` Hz.

    A sound stands out if a step of 0.1 s is louder than `silence_db` and `above_db` louder
    than the background. It is over after `hang_s` seconds without it; one that lasts longer than
    `every_s` is returned in parts of that length. So is steady sound, which does not stand out.
    """

    rate: int
    silence_db: float = SILENCE_DB
    every_s: float = 10.0
    above_db: float = 9.0
    hang_s: float = 0.6
    _kind: str = ""
    _start: int = 0
    _last: int = 0
    _level: float = 0.0
    _steps: int = 0
    _rest: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    _levels: deque[float] = field(default_factory=deque[float])

    def __post_init__(self) -> None:
        self._size = round(STEP_S * self.rate)
        self._hang, self._every = round(self.hang_s / STEP_S), round(self.every_s / STEP_S)
        self._levels = deque(repeat(self.silence_db, _BACKGROUND_STEPS), _BACKGROUND_STEPS)

    def feed(self, samples: Float32[np.ndarray, " T"]) -> list[Stretch]:
        """The stretches that end with these samples, which follow those of the last call."""
        samples = np.concatenate([self._rest, samples])
        whole = len(samples) - len(samples) % self._size
        self._rest = samples[whole:]
        found: list[Stretch] = []
        for step in samples[:whole].reshape(-1, self._size):
            found += self._next(max(self.silence_db - 1, level_db(step, self.rate)))
        return found

    def finish(self) -> list[Stretch]:
        """The stretch that the end of the stream cuts off, if there is one."""
        found = self._closed()
        self._kind, self._rest = "", self._rest[:0]
        return found

    def _next(self, level: float) -> list[Stretch]:
        """Judges the next step by its level."""
        background = sorted(self._levels)[round(_BACKGROUND_QUANTILE * len(self._levels))]
        self._levels.append(level)
        now, self._steps = self._steps, self._steps + 1
        sounds = level >= self.silence_db
        stands_out = sounds and level > background + self.above_db
        found: list[Stretch] = []
        if self._kind and now - self._last > self._hang:
            found, self._kind = self._closed(), ""
        if stands_out and self._kind != "front":
            self._kind, self._start, self._level = "front", now, level
        elif self._kind == "front" and not stands_out and level > self._level - self.above_db:
            # It has not become quieter: the background has risen up to it.
            self._kind = "steady"
        elif sounds and not self._kind:
            self._kind, self._start = "steady", now
        if stands_out or (sounds and self._kind == "steady"):
            self._last = now
            self._level += _FOLLOW * (level - self._level)
        if self._kind and now + 1 - self._start >= self._every:
            found.append(self._stretch(now + 1))
            self._start = now + 1
        return found

    def _closed(self) -> list[Stretch]:
        """The sound that is over, without the parts already returned."""
        end = self._last + 1
        least = _LEAST_STEADY_S / STEP_S if self._kind == "steady" else 1
        return [self._stretch(end)] if self._kind and end - self._start >= least else []

    def _stretch(self, end: int) -> Stretch:
        return Stretch(self._start * self._size, end * self._size)
