"""Events of a stream: reported when they begin and again when they are over."""

from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float32

from earwitness.live.records import Report
from earwitness.models.sound_events import FindsEvents, SoundEvent

HOP_S = 0.5
"""seconds from one look at the stream to the next"""

CONTEXT_S = 3.0
"""seconds of sound that each look sees"""

_LAG_S = 0.5  # the head tells a frame by the second around it: later frames wait for theirs
_GAP_S = 0.5
_SILENCE = "Silence"


@dataclass
class EventTrack:
    """Follows the events of a stream. Every instant is judged once, at least 0.5 s before the end
    of the available sound; an event is over after 0.5 s without it.
    """

    classes: FindsEvents
    threshold: float
    judged: float = 0.0
    """the second up to which the stream has been judged"""
    _open: dict[str, Report] = field(default_factory=dict[str, Report])

    def look(
        self, samples: Float32[np.ndarray, " T"], end: float, final: bool = False
    ) -> list[Report]:
        """New reports, given the last seconds of the stream, up to its second `end`.

        No samples mean silence. `final`: nothing follows, and all events are over.
        """
        start = end - len(samples) / self.classes.sample_rate
        until = end if final else end - _LAG_S
        found: list[Report] = []
        if len(samples) and until > self.judged:
            for event in self.classes.events(samples, self.threshold):
                times = start + event.start_s, start + event.end_s
                if event.name != _SILENCE and times[0] < until and times[1] > self.judged:
                    begin, stop = max(times[0], self.judged), min(times[1], until)
                    found += self._follow(event, begin, stop)
        self.judged = max(self.judged, until)
        return found + self._ended(self.judged if not final else float("inf"))

    def _follow(self, event: SoundEvent, start: float, end: float) -> list[Report]:
        before = self._open.get(event.label)
        if before is not None and before.end is not None and start - before.end <= _GAP_S:
            score = max(before.score, event.probability)
            self._open[event.label] = replace(before, end=max(before.end, end), score=score)
            return []
        new = Report("end", start, end, event.name, event.probability, event.label)
        self._open[event.label] = new
        begun = replace(new, kind="start", end=None)
        return [begun] if before is None else [before, begun]

    def _ended(self, now: float) -> list[Report]:
        over = [
            one for one in self._open.values() if one.end is not None and now - one.end > _GAP_S
        ]
        for report in over:
            del self._open[report.label]
        return sorted(over, key=lambda one: one.start)
