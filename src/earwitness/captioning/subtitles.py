"""SubRip (SRT) and WebVTT: parsing, writing, and placing sound captions between speech cues.

Sound captions follow the convention of subtitles for the deaf and hard of hearing: in square
brackets, lower case, without a leading article or a period.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from earwitness.errors import DataError

Format = Literal["srt", "vtt"]

_STAMP = r"(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,3}))?"
_TIMING = re.compile(rf"\s*{_STAMP}\s*-->\s*{_STAMP}(?:\s+(.*?))?\s*$")
# A malformed line of times: two words with a colon and a digit, and an arrow between them.
_ALMOST_TIMING = re.compile(
    r"\s*(?=\S{0,24}\d)\S{1,24}:\S{1,24}\s*(?:-{1,3}>|=>|\u2192)|.*-->\s*\d\S*:\S"
)
_LONGEST_TIMING = 300
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
    """A text shown from `start` to `end` in seconds; `name` and `settings` are WebVTT's."""

    start: float
    end: float
    text: str
    name: str = ""
    settings: str = ""


@dataclass(frozen=True)
class Subtitles:
    """Cues, and what a WebVTT file has before the first one.

    `preamble` holds its styles, regions and notes, `header` the rest of its first block after the
    word WEBVTT. `problems` has one sentence per unreadable cue, with its line number.
    """

    cues: tuple[Cue, ...]
    preamble: str = ""
    header: str = ""
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Placement:
    """Where a sound caption may be placed; all values in seconds."""

    shortest: float = 1.0
    """a gap in the speech that is shorter than this gets no caption"""
    longest: float = 4.0
    """a caption stays on screen no longer than this"""
    margin: float = 0.1
    """kept free next to the speech on both sides"""

    def versions(self, text: str) -> Iterable[tuple[str, float]]:
        """The texts that may be shown for a bracketed caption, best first, and the seconds that
        each needs: here only the caption itself.
        """
        return [(text, self.shortest)]


def read(content: bytes, name: str = "the subtitles") -> Subtitles:
    """The cues of an SRT or WebVTT file in UTF-8, UTF-16 or, if it is neither, Windows-1252.

    Raises:
        DataError: as in `parse`.
    """
    return parse(_decoded(content), name)


def parse(text: str, name: str = "the subtitles") -> Subtitles:
    """The cues of SRT or WebVTT text (by its first line), in order of time; texts are unchanged.

    Blank lines between cues may be missing, and the text of an SRT cue may contain some. A cue with
    unreadable times, or one that ends before it starts, is skipped and listed in `problems`.

    Raises:
        DataError: the text holds no readable cue and is not empty.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
    lines = [line if line.strip() else "" for line in text.split("\n")]
    vtt = re.match(r"WEBVTT(?:[ \t]|$)", lines[0]) is not None
    top = _header_end(lines) if vtt else 0
    starts = [at for at in range(top, len(lines)) if _starts_cue(lines, at, top)]
    edges = [*(_name_line(lines, at, top) for at in starts), len(lines)]
    preamble, strays = _between(lines, top, edges[0], vtt)
    cues: list[Cue] = []
    for at, edge, end in zip(starts, edges, edges[1:], strict=False):
        body = lines[at + 1 : end]
        if vtt and "" in body:
            body = body[: body.index("")]
            strays += _between(lines, at + 1 + len(body), end, vtt)[1]
        cue = _cue(lines[edge:at], lines[at], body)
        if cue is None:
            strays.append(at)
        else:
            cues.append(cue)
    problems = tuple(_problem(lines[at], at) for at in sorted(strays))
    if problems and not cues:
        raise DataError(
            f"{name}: {problems[0]}; expected SRT or WebVTT with times such as "
            "00:00:01,000 --> 00:00:02,500"
        )
    header = "\n".join(lines[:top]).removeprefix("WEBVTT")
    ordered = tuple(sorted(cues, key=lambda cue: cue.start))
    return Subtitles(ordered, "\n\n".join(preamble), header, problems)


def to_srt(subtitles: Subtitles | Sequence[Cue]) -> str:
    """SubRip text: numbered cues, a comma before the milliseconds, a blank line after each cue."""
    blocks = [
        f"{number}\n{stamp(cue.start, ',')} --> {stamp(cue.end, ',')}\n{_body(cue.text)}\n\n"
        for number, cue in enumerate(_cues(subtitles), start=1)
    ]
    return "".join(blocks)


def to_vtt(subtitles: Subtitles | Sequence[Cue]) -> str:
    """WebVTT text, with the header, preamble, and the cues' names and settings, if any."""
    first = subtitles if isinstance(subtitles, Subtitles) else Subtitles(())
    head = f"WEBVTT{first.header}\n\n" + (f"{first.preamble}\n\n" if first.preamble else "")
    return head + "".join(vtt_block(cue) for cue in _cues(subtitles))


def bracketed(caption: str) -> str:
    """A caption as in subtitles for the deaf: "A dog barks." becomes "[dog barks]"."""
    text = " ".join(caption.split()).strip(" .;,")
    text = _ARTICLE.sub("", text)
    return f"[{text[:1].lower()}{text[1:]}]"


def add_sounds(
    speech: Subtitles, sounds: Iterable[Cue], placement: Placement | None = None
) -> tuple[Subtitles, int]:
    """The speech cues with sound captions in the gaps between; and how many did not fit.

    The speech is unchanged. A sound is put into the first gap within its time that is long enough,
    once, however long it lasts, and never overlaps a speech cue or another sound. A caption that
    only says that somebody speaks is omitted if speech cues fall within its time: they say more.
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
        for text, least in placement.versions(bracketed(sound.text)):
            start = max(sound.start, free_from)
            if span := _first_gap(start, sound.end, busy, placement, least):
                added.append(Cue(*span, text))
                free_from = span[1]
                break
        else:
            homeless += 1
    cues = sorted([*speech.cues, *added], key=lambda cue: (cue.start, cue.end))
    return replace(speech, cues=tuple(cues)), homeless


def _first_gap(
    start: float, end: float, busy: list[tuple[float, float]], placement: Placement, least: float
) -> tuple[float, float] | None:
    """The first stretch of at least `least` seconds between `start` and `end` that does not overlap
    `busy`, in whole milliseconds.
    """
    spans = [span for span in busy if span[1] > start - placement.margin]
    for left, right in [*spans, (end + placement.margin, end)]:
        stop = min(end, left - placement.margin)
        longest = max(placement.longest, least)
        first, last = _milliseconds(start), _milliseconds(min(stop, start + longest))
        if last - first >= _milliseconds(least):
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


def _decoded(content: bytes) -> str:
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16", errors="replace")
    if b"\0" in content[:2]:
        # UTF-16 without a BOM: one byte of the first character is zero.
        order = "be" if content[:1] == b"\0" else "le"
        return content.decode(f"utf-16-{order}", errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def _header_end(lines: Sequence[str]) -> int:
    """The number of lines in the header of a WebVTT file."""
    return next((at for at, line in enumerate(lines) if not line or "-->" in line), len(lines))


def _starts_cue(lines: Sequence[str], at: int, top: int) -> bool:
    """Whether the line holds the times of a cue, even if malformed."""
    line = lines[at]
    if len(line) > _LONGEST_TIMING:
        return False
    if _TIMING.match(line) or _ALMOST_TIMING.match(line):
        return True
    return "-->" in line and at > top and lines[at - 1].strip().isdigit()


def _name_line(lines: Sequence[str], at: int, top: int) -> int:
    """The first line of the cue whose times are on line `at`: its number or name, if any."""
    above = at - 1
    if above < top or not lines[above] or "-->" in lines[above]:
        return at
    alone = above == top or not lines[above - 1]
    return above if alone or lines[above].strip().isdigit() else at


def _between(lines: Sequence[str], start: int, end: int, vtt: bool) -> tuple[list[str], list[int]]:
    """The lines outside cues: WebVTT's own blocks, and where the other blocks begin."""
    kept: list[str] = []
    strays: list[int] = []
    at = start
    while at < end:
        stop = next((n for n in range(at, end) if not lines[n]), end)
        if vtt and re.match(r"(?:NOTE|STYLE|REGION)(?:\s|$)", lines[at]):
            kept.append("\n".join(lines[at:stop]))
        elif stop > at:
            strays.append(at)
        at = stop + 1
    return kept, strays


def _cue(above: Sequence[str], timing: str, body: Sequence[str]) -> Cue | None:
    """The cue, or None if its times cannot be read or run backwards."""
    found = _TIMING.match(timing)
    if not found:
        return None
    groups = found.groups()
    start, end = _seconds(groups[:4]), _seconds(groups[4:8])
    name = above[0].strip() if above else ""
    text = "\n".join(line for line in body if line)
    return Cue(start, end, text, name, groups[8] or "") if start <= end else None


def _problem(line: str, at: int) -> str:
    fault = "ends before it starts" if _TIMING.match(line) else "does not start a cue"
    return f"line {at + 1}: {line[:60]!r} {fault}"


def _seconds(groups: Sequence[str | None]) -> float:
    hours, minutes, seconds, fraction = groups
    whole = 3600 * int(hours or 0) + 60 * int(minutes or 0) + int(seconds or 0)
    return (1000 * whole + int((fraction or "0").ljust(3, "0"))) / 1000


def stamp(seconds: float, point: str) -> str:
    """Seconds as 00:01:02.345, with `point` before the milliseconds."""
    total = _milliseconds(seconds)
    hours, rest = divmod(total, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02}{point}{rest % 1000:03}"


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _cues(subtitles: Subtitles | Sequence[Cue]) -> Sequence[Cue]:
    return subtitles.cues if isinstance(subtitles, Subtitles) else subtitles


def vtt_block(cue: Cue) -> str:
    """A cue of a WebVTT file, followed by a blank line."""
    name = f"{cue.name}\n" if cue.name and not cue.name.isdigit() else ""
    settings = f" {cue.settings}" if cue.settings else ""
    times = f"{stamp(cue.start, '.')} --> {stamp(cue.end, '.')}{settings}"
    return f"{name}{times}\n{_body(cue.text)}\n\n"


def _body(text: str) -> str:
    """The text without blank lines, which would end its cue."""
    return re.sub(r"\n(?:[ \t]*\n)+", "\n", text.strip("\n"))
