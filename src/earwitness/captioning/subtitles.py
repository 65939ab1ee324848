"""SubRip (SRT) and WebVTT: parsing, writing, and sound captions placed between lines of speech.

Text in, text out. Sound captions follow the convention of subtitles for the deaf and hard of
hearing: in square brackets, lower case, without an article in front or a full stop.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from earwitness.errors import DataError

Format = Literal["srt", "vtt"]

_STAMP = r"(?:(\d+):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,3}))?"
_TIMING = re.compile(rf"^\s*{_STAMP}\s*-->\s*{_STAMP}(?:\s+(.*?))?\s*$")
_ARTICLE = re.compile(r"^(?:an?|the|some)\s+(?=\w)", re.IGNORECASE)
_SPEECH = re.compile(
    r"\b(?:speak\w*|speech|talk\w*|said|say\w*|narrat\w*|voices?|convers\w*|dialogue)\b",
    re.IGNORECASE,
)
_OTHER_SOUND = re.compile(
    r"\b(?:and|as|while|with|then|followed|over|before|after)\b|,", re.IGNORECASE
)


@dataclass(frozen=True)
class Cue:
    """A text shown from `start` to `end`, in seconds. `name` and `settings` are those of WebVTT."""

    start: float
    end: float
    text: str
    name: str = ""
    settings: str = ""


@dataclass(frozen=True)
class Subtitles:
    """Cues, and what a WebVTT file says before the first of them (styles, regions, notes)."""

    cues: tuple[Cue, ...]
    preamble: str = ""


@dataclass(frozen=True)
class Placement:
    """Where a sound caption may stand: all in seconds."""

    shortest: float = 1.0
    """a gap in the speech below this holds no caption"""
    longest: float = 4.0
    """a caption leaves the screen after this time"""
    margin: float = 0.1
    """to the lines of speech on both sides"""


def parse(text: str, name: str = "the subtitles") -> Subtitles:
    """The cues of SRT or WebVTT text (by its first line), in order of time; texts stay as they are.

    Raises:
        DataError: a block has no readable times, or a cue ends before it starts.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
    vtt = re.match(r"WEBVTT(?:[ \t\n]|$)", text) is not None
    cues: list[Cue] = []
    before: list[str] = []
    for number, block in enumerate(re.split(r"\n(?:[ \t]*\n)+", text.strip("\n"))):
        lines = block.split("\n")
        if not block.strip() or (vtt and number == 0 and "-->" not in block):
            before += [block.removeprefix("WEBVTT").strip()] if vtt else []
            continue
        if vtt and re.match(r"(?:NOTE|STYLE|REGION)(?:\s|$)", lines[0]) and "-->" not in block:
            before += [] if cues else [block]
            continue
        if vtt and number == 0:
            lines = lines[1:]
        cue = _cue(lines)
        if cue is None and cues and not vtt:
            # Some SRT texts hold empty lines.
            cues[-1] = replace(cues[-1], text=f"{cues[-1].text}\n{block}")
        elif cue is None or cue.end < cue.start:
            raise DataError(
                f"{name}: {lines[0][:60]!r} does not start a cue; expected SRT or WebVTT "
                "with times such as 00:00:01,000 --> 00:00:02,500"
            )
        else:
            cues.append(cue)
    preamble = "\n\n".join(part for part in before if part)
    return Subtitles(tuple(sorted(cues, key=lambda cue: cue.start)), preamble)


def to_srt(subtitles: Subtitles | Sequence[Cue]) -> str:
    """SubRip text: numbered cues, comma before the milliseconds, an empty line after each."""
    blocks = [
        f"{number}\n{_stamp(cue.start, ',')} --> {_stamp(cue.end, ',')}\n{_body(cue.text)}\n\n"
        for number, cue in enumerate(_cues(subtitles), start=1)
    ]
    return "".join(blocks)


def to_vtt(subtitles: Subtitles | Sequence[Cue]) -> str:
    """WebVTT text, with the preamble, names and settings of the cues where there are any."""
    preamble = subtitles.preamble if isinstance(subtitles, Subtitles) else ""
    head = "WEBVTT\n\n" + (f"{preamble}\n\n" if preamble else "")
    return head + "".join(_vtt_block(cue) for cue in _cues(subtitles))


def bracketed(caption: str) -> str:
    """A caption as subtitles for the deaf have it: "A dog barks." becomes "[dog barks]"."""
    text = " ".join(caption.split()).strip(" .;,")
    text = _ARTICLE.sub("", text)
    return f"[{text[:1].lower()}{text[1:]}]"


def add_sounds(
    speech: Subtitles, sounds: Iterable[Cue], placement: Placement | None = None
) -> tuple[Subtitles, int]:
    """The lines of speech with sound captions in the gaps between; how many found no gap.

    The speech stays as it is. A sound stands in the first gap of its time that is long enough,
    once, however long it lasts, and never overlaps a line of speech or another sound. A caption
    that only says that somebody speaks is left out where its time holds lines of speech: they say
    more.
    """
    placement = placement or Placement()
    busy = _united((cue.start, cue.end) for cue in speech.cues)
    added: list[Cue] = []
    homeless = 0
    free_from = 0.0
    for sound in sorted(sounds, key=lambda cue: cue.start):
        overlapping = [span for span in busy if span[0] < sound.end and sound.start < span[1]]
        if overlapping and _only_speech(sound.text):
            continue
        span = _first_gap(max(sound.start, free_from), sound.end, busy, placement)
        if span is None:
            homeless += 1
            continue
        added.append(Cue(*span, bracketed(sound.text)))
        free_from = span[1]
    cues = sorted([*speech.cues, *added], key=lambda cue: (cue.start, cue.end))
    return replace(speech, cues=tuple(cues)), homeless


def _first_gap(
    start: float, end: float, busy: list[tuple[float, float]], placement: Placement
) -> tuple[float, float] | None:
    """The first stretch from `start` to `end` that keeps clear of `busy`, in whole milliseconds."""
    spans = [span for span in busy if span[1] > start - placement.margin]
    for left, right in [*spans, (end + placement.margin, end)]:
        stop = min(end, left - placement.margin)
        first, last = _milliseconds(start), _milliseconds(min(stop, start + placement.longest))
        if last - first >= _milliseconds(placement.shortest):
            return first / 1000, last / 1000
        start = max(start, right + placement.margin)
        if start >= end:
            return None
    return None


def _united(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The spans in order, overlapping ones joined."""
    united: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if united and start <= united[-1][1]:
            united[-1] = (united[-1][0], max(end, united[-1][1]))
        else:
            united.append((start, end))
    return united


def _only_speech(caption: str) -> bool:
    return bool(_SPEECH.search(caption)) and not _OTHER_SOUND.search(caption)


def _cue(lines: list[str]) -> Cue | None:
    """The cue of a block: times on its first or second line, text below them."""
    for at, line in enumerate(lines[:2]):
        found = _TIMING.match(line)
        if found:
            groups = found.groups()
            name = lines[0].strip() if at == 1 else ""
            text = "\n".join(lines[at + 1 :])
            return Cue(_seconds(groups[:4]), _seconds(groups[4:8]), text, name, groups[8] or "")
    return None


def _seconds(groups: Sequence[str | None]) -> float:
    hours, minutes, seconds, fraction = groups
    whole = 3600 * int(hours or 0) + 60 * int(minutes or 0) + int(seconds or 0)
    return (1000 * whole + int((fraction or "0").ljust(3, "0"))) / 1000


def _stamp(seconds: float, point: str) -> str:
    total = _milliseconds(seconds)
    hours, rest = divmod(total, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02}{point}{rest % 1000:03}"


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _cues(subtitles: Subtitles | Sequence[Cue]) -> Sequence[Cue]:
    return subtitles.cues if isinstance(subtitles, Subtitles) else subtitles


def _vtt_block(cue: Cue) -> str:
    name = f"{cue.name}\n" if cue.name and not cue.name.isdigit() else ""
    settings = f" {cue.settings}" if cue.settings else ""
    times = f"{_stamp(cue.start, '.')} --> {_stamp(cue.end, '.')}{settings}"
    return f"{name}{times}\n{_body(cue.text)}\n\n"


def _body(text: str) -> str:
    """The text without empty lines, which would end its cue."""
    return re.sub(r"\n(?:[ \t]*\n)+", "\n", text.strip("\n"))
