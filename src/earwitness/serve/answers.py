"""Results as JSON, text, subtitles and OpenAI's transcription objects."""

import json
import math
import zlib
from collections.abc import Sequence
from typing import Any, Literal

from starlette.responses import JSONResponse, PlainTextResponse, Response

from earwitness.caption import NOTHING, Decoding
from earwitness.captioning.pipeline import SoundResult
from earwitness.captioning.segments import Segment, summary
from earwitness.captioning.subtitles import Subtitles
from earwitness.captioning.writers import Record, as_lines, subtitle_text
from earwitness.text import gist

TranscriptionFormat = Literal["json", "text", "srt", "vtt", "verbose_json"]

_SUBTITLE_TYPES = {"srt": "application/x-subrip", "vtt": "text/vtt"}


def captions(
    result: SoundResult,
    kind: Literal["json", "text", "srt", "vtt"],
    model: str,
    speech: Subtitles | None,
) -> Response:
    """The answer of /v1/audio/captions."""
    return captioned(result.record(model), kind, speech)


def captioned(
    record: Record, kind: Literal["json", "text", "srt", "vtt"], speech: Subtitles | None = None
) -> Response:
    """A record in a format; `json` is the record that the command line writes."""
    found = _noted(record.get("notes", ()))
    if kind == "json":
        return JSONResponse(record, headers=found)
    if kind == "text":
        lines = "\n".join(as_lines(record, named=False)) + "\n"
        return PlainTextResponse(lines, headers=found)
    text, without_gap = subtitle_text(record, kind, speech)
    if speech is not None:
        found["X-Sounds-Without-Gap"] = str(without_gap)
        found["X-Cues-Left-Out"] = str(len(speech.problems))
    return Response(text, media_type=_SUBTITLE_TYPES[kind], headers=found)


def transcription(
    result: SoundResult,
    kind: TranscriptionFormat,
    decoding: Decoding,
    task: Literal["transcribe", "translate"] = "transcribe",
) -> Response:
    """The answer of /v1/audio/transcriptions and /v1/audio/translations."""
    text, _ = summary(result.segments)
    notes = _noted(result.notes)
    if kind == "text":
        return PlainTextResponse(text + "\n", headers=notes)
    if kind in ("srt", "vtt"):
        subtitles, _ = subtitle_text(result.record(""), kind)
        return Response(subtitles, media_type=_SUBTITLE_TYPES[kind], headers=notes)
    usage = {"type": "duration", "seconds": math.ceil(result.seconds)}
    if kind == "json":
        return JSONResponse({"text": text, "usage": usage}, headers=notes)
    temperature = decoding.temperature if decoding.sample else 0.0
    segments = [
        verbose_segment(number, segment, temperature)
        for number, segment in enumerate(result.segments)
    ]
    verbose = {"task": task, "language": "english", "duration": round(result.seconds, 3)}
    return JSONResponse(
        {**verbose, "text": text, "segments": segments, "usage": usage}, headers=notes
    )


def _noted(notes: Sequence[str]) -> dict[str, str]:
    """The header with notes on anything odd about a sound that could be read anyway."""
    text = " ".join("; ".join(notes).split())
    return {"X-Notes": text.encode("ascii", "backslashreplace").decode()[:2000]} if text else {}


def verbose_segment(number: int, segment: Segment, temperature: float) -> dict[str, Any]:
    """A segment with the fields of OpenAI's.

    `avg_logprob` is the mean log-probability of the caption's tokens, 0 if no model was
    run; `no_speech_prob` is 1 if a gate (field `gate`) closed the segment, else 0.
    """
    raw = segment.caption.encode()
    return {
        "id": number,
        "seek": round(100 * segment.start),
        "start": segment.start,
        "end": segment.end,
        "text": segment.caption,
        "tokens": [],
        "temperature": temperature,
        "avg_logprob": round(math.log(max(segment.score, 1e-9)), 4) if segment.score else 0.0,
        "compression_ratio": round(len(raw) / len(zlib.compress(raw)), 4),
        "no_speech_prob": 0.0 if segment.gate is None else 1.0,
        "gate": segment.gate,
    }


class Deltas:
    """What each segment adds to the text of a whole sound; joined, the deltas are that text."""

    def __init__(self) -> None:
        self._gists: set[tuple[str, ...]] = set()

    def of(self, segment: Segment) -> str:
        """The text that `segment` adds; empty for silence and for repeated captions."""
        if segment.gate is not None or (words := gist(segment.caption)) in self._gists:
            return ""
        self._gists.add(words)
        return segment.caption if len(self._gists) == 1 else f"; {segment.caption}"

    def rest(self) -> str:
        """The text of a sound in which nothing was distinct, otherwise empty."""
        return "" if self._gists else NOTHING


def event(data: dict[str, Any] | str, name: str | None = None) -> str:
    """One server-sent event."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {text}\n\n"
