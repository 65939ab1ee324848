"""The timeline of a file: where each frame belongs, so that gaps are kept."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av import AudioFrame

HOLE_SECONDS = 0.1
"""a timestamp this much later than the end of the samples before it leaves a gap; less is jitter"""

# Where a clock may jump, a longer gap counts only if another track covers it.
_JUMP_SECONDS = 60.0
_LONGEST_HOLE = 12 * 3600.0


class TimeLine:
    """Compares sample counts with timestamps, from the start of the file on.

    `start` is the file's own start time. Timestamps that go back (joined recordings) shift it, so
    that no sample is dropped. `jumps`: the format's clock may jump where recordings were joined.
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
        """The samples of silence that belong before `frame`, which is then counted as read."""
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
        """Notes the time of a packet of another track: it shows that a gap is not a jump."""
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
