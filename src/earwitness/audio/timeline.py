"""The time line of a file: where each frame is, so that holes stay holes."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av import AudioFrame

HOLE_SECONDS = 0.1
"""a time stamp that is later than the samples before it by more leaves a hole; less is jitter"""

# Where a clock may jump, a longer hole must be covered by another track to count as one.
_JUMP_SECONDS = 60.0
_LONGEST_HOLE = 12 * 3600.0


class TimeLine:
    """Counts samples against time stamps, from the first second of the file on.

    `start` is the file's own first time. Time stamps that go back (joined recordings) move it: no
    sample is dropped. `jumps`: the clock of the format may leap where recordings were joined.
    """

    def __init__(self, start: float, *, jumps: bool) -> None:
        self._start, self._jumps = start, jumps
        self._covered = False
        self.seconds = 0.0
        """where the samples so far end"""
        self.first = 0.0
        """where the first sample is"""
        self.empty = True

    def gap(self, frame: "AudioFrame") -> int:
        """Samples of silence before `frame`, which counts as read."""
        silence = 0.0
        if frame.pts is not None and frame.time_base is not None:
            silence = self._silence(float(frame.pts * frame.time_base))
        count = round(silence * frame.sample_rate)
        self.seconds += count / frame.sample_rate
        if self.empty:
            self.first, self.empty = self.seconds, False
        self.seconds += frame.samples / frame.sample_rate
        self._covered = False
        return count

    def other(self, time: float) -> None:
        """Takes the time of a packet of another track: it shows that a hole is not a jump."""
        time -= self._start
        self._covered |= self.seconds + 1 < time < self.seconds + _LONGEST_HOLE

    def _silence(self, time: float) -> float:
        late = time - self._start - self.seconds
        if -HOLE_SECONDS <= late <= HOLE_SECONDS:
            return 0.0
        if late < 0 or late > _LONGEST_HOLE:
            self._start += late
            return 0.0
        if self._jumps and late > _JUMP_SECONDS and not self._covered:
            self._start += late
            return 0.0
        return late
