"""Timed words as readable subtitles, within the limits of professional subtitling.

At most two lines of 42 characters, at most 17 characters per second, no overlaps. Where people
speak faster than that, a cue stays a little longer and the next one appears up to 2 s late.
"""

import math
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from earwitness.captioning.subtitles import Cue, Placement


class Word(NamedTuple):
    """A spoken word with its punctuation, from `start` to `end` in seconds."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Reading:
    """What viewers can read: the usual limits of subtitles."""

    line: int = 42
    """characters per line"""
    lines: int = 2
    speed: float = 17.0
    """characters per second, spaces included"""
    shortest: float = 0.833
    """the least seconds that a cue stays on screen"""
    longest: float = 7.0
    gap: float = 0.083
    """seconds between two cues, so that the change is noticed"""
    latest: float = 2.0
    """the most seconds that a cue may lag behind its words"""

    def seconds(self, text: str) -> float:
        """How long a text must stay on screen, in seconds rounded to milliseconds."""
        return math.ceil(1000 * max(self.shortest, len(text) / self.speed)) / 1000

    def wrapped(self, text: str) -> str | None:
        """The text in as few lines as possible, of similar length; None if it is too long."""
        parts = textwrap.wrap(text, self.line)
        if len(parts) > self.lines:
            return None
        for width in range(math.ceil(len(text) / max(1, len(parts))), self.line):
            narrow = textwrap.wrap(text, width, break_long_words=False)
            if len(narrow) == len(parts) and max(map(len, narrow)) <= self.line:
                return "\n".join(narrow)
        return "\n".join(parts)


READING = Reading()

_CLAUSE = re.compile(r",? \b(?:as|while|and|with|followed by|before|after|then|in the) |, ")


@dataclass(frozen=True)
class ReadablePlacement(Placement):
    """Sounds between speech cues that stay as long as they take to read; captions that do not fit
    the gap are shortened clause by clause.
    """

    reading: Reading = READING

    def versions(self, text: str) -> Iterable[tuple[str, float]]:
        """The caption, then its beginnings up to each clause, if they fit in two lines."""
        inner = text.strip("[]")
        ends = [len(inner), *(found.start() for found in reversed(list(_CLAUSE.finditer(inner))))]
        for end in ends:
            if end and (wrapped := self.reading.wrapped(f"[{inner[:end]}]")):
                yield wrapped, max(self.shortest, self.reading.seconds(f"[{inner[:end]}]"))


_PAUSE_S = 0.8
_ENDS = re.compile(r"[.?!…][\"')\]]*$")
_PARTS = re.compile(r"[,;:–—][\"')\]]*$")
_FEW = 20


def lines_of(words: Iterable[Word], reading: Reading = READING) -> tuple[list[Cue], int]:
    """Cues of words in order of time, and how many of them are too fast to read."""
    groups = list(_groups(words, reading))
    cues: list[Cue] = []
    fast, free = 0, 0.0
    for number, group in enumerate(groups):
        text = " ".join(word.text for word in group)
        start = _up(max(group[0].start, free))
        following = groups[number + 1][0].start if number + 1 < len(groups) else math.inf
        wanted = start + reading.seconds(text)
        # A cue that would delay the next one for too long is cut short.
        end = min(max(group[-1].end, wanted), following - reading.gap + reading.latest)
        end = _up(max(end, start + 0.1))
        fast += end < wanted
        cues.append(Cue(start, end, reading.wrapped(text) or text))
        free = end + reading.gap
    return cues, fast


def _groups(words: Iterable[Word], reading: Reading) -> Iterable[list[Word]]:
    """Words shown together: they fit, no pause separates them, and they end with a sentence."""
    held: list[Word] = []
    for word in _short_enough(words, reading):
        while held and not _joins(held, word, reading):
            cut = _cut(held, word)
            yield held[:cut]
            held = held[cut:]
        held.append(word)
    if held:
        yield held


def _joins(held: Sequence[Word], word: Word, reading: Reading) -> bool:
    text = " ".join(one.text for one in held)
    if word.start - held[-1].end > _PAUSE_S or (_ENDS.search(text) and len(text) >= _FEW):
        return False
    fits = reading.wrapped(f"{text} {word.text}") is not None
    return fits and word.end - held[0].start <= reading.longest


def _cut(held: Sequence[Word], word: Word) -> int:
    """How many words a full group keeps: up to a comma in its second half, if there is one."""
    if word.start - held[-1].end > _PAUSE_S or _ENDS.search(held[-1].text):
        return len(held)
    places = range(len(held), len(held) // 2, -1)
    marked = (
        n for n in places if _PARTS.search(held[n - 1].text) or _ENDS.search(held[n - 1].text)
    )
    return next(marked, len(held))


def _short_enough(words: Iterable[Word], reading: Reading) -> Iterable[Word]:
    """The words; one that is longer than a line is split into pieces."""
    for word in words:
        pieces = textwrap.wrap(word.text, reading.line)
        share = (word.end - word.start) / max(1, len(pieces))
        for number, piece in enumerate(pieces):
            yield Word(word.start + number * share, word.start + (number + 1) * share, piece)


def _up(seconds: float) -> float:
    """Seconds rounded up to a whole millisecond."""
    return math.ceil(round(1000 * seconds, 3)) / 1000
