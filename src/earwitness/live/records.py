"""What is reported about a stream: an event begins, an event is over, a sound is captioned."""

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["start", "end", "caption"]


@dataclass(frozen=True)
class Report:
    """Something heard, in seconds of the stream; `end` is None for an ongoing event.

    `text` is the caption, or AudioSet's name of the event, and `label` our own name of its class;
    `score` is that of the caption, or the highest probability of the event so far.
    """

    kind: Kind
    start: float
    end: float | None
    text: str
    score: float
    label: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The fields as the other commands name them, times in milliseconds' precision."""
        fields: dict[str, Any] = {"type": self.kind, "start": round(self.start, 3)}
        if self.end is not None:
            fields["end"] = round(self.end, 3)
        if self.kind == "caption":
            return fields | {"caption": self.text, "score": round(self.score, 4)}
        return fields | {"event": self.text, "probability": round(self.score, 4)}
