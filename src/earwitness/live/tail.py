"""The last seconds of a stream, in memory that does not grow."""

import numpy as np
from jaxtyping import Float32


class Tail:
    """The last `room` samples of a stream, at least; `end` is the position of the next one."""

    def __init__(self, room: int, end: int = 0) -> None:
        self.end = end
        self._room, self._used = room, 0
        # Twice the room, so that samples are moved once per `room`, not at every call.
        self._samples = np.zeros(2 * room, np.float32)

    def add(self, samples: Float32[np.ndarray, " T"]) -> None:
        """Appends at most `room` samples."""
        if self._used + len(samples) > len(self._samples):
            self._samples[: self._room] = self._samples[self._used - self._room : self._used]
            self._used = self._room
        self._samples[self._used : self._used + len(samples)] = samples
        self._used += len(samples)
        self.end += len(samples)

    def between(self, start: int, end: int) -> tuple[int, Float32[np.ndarray, " T"]]:
        """The samples from `start` to `end` as far as they are here, and the place of the first."""
        first = self.end - self._used
        left, right = max(first, start), min(self.end, end)
        return left, self._samples[left - first : right - first].copy()
