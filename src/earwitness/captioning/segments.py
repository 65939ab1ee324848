"""Cuts long sounds into windows, and joins captioned windows into segments without gaps.

A sound is cut while it is being decoded, so that its length does not matter. Windows may overlap;
every second of the sound belongs to exactly one segment. Pure NumPy, independent of the captioner.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float32

from earwitness.audio.levels import level_db as level_db
from earwitness.caption import NOTHING as NOTHING
from earwitness.errors import ConfigError
from earwitness.text import gist

_MAX_WHOLE = 3600.0


class Window(NamedTuple):
    """A stretch of a sound: its first sample, its samples, and whether it is the whole sound."""

    start: int
    samples: Float32[np.ndarray, " T"]
    whole: bool


@dataclass(frozen=True)
class Windows:
    """How a sound is cut, in seconds.

    A sound of up to `whole` is one window. A longer one is cut into windows of length `window`, one
    every `hop`; the last one ends where the sound ends.

    Raises:
        ConfigError: not 0 < hop <= window <= whole <= 3600, or a window below 0.1 s.
    """

    window: float = 10.0
    hop: float = 10.0
    whole: float = 30.0

    def __post_init__(self) -> None:
        if not 0.1 <= self.window <= _MAX_WHOLE:
            raise ConfigError(
                f"expected a window of 0.1 to {_MAX_WHOLE:g} s, got {self.window:g} s"
            )
        if not 0.01 <= self.hop <= self.window:
            raise ConfigError(
                f"expected a hop from 0.01 s to the window length, {self.window:g} s, got "
                f"{self.hop:g} s"
            )
        if not self.window <= self.whole <= _MAX_WHOLE:
            raise ConfigError(
                f"expected whole from the window length, {self.window:g} s, to "
                f"{_MAX_WHOLE:g} s, got {self.whole:g} s"
            )


class Candidate(NamedTuple):
    """One of the n-best captions: its score, and its second score if it was reranked by one."""

    caption: str
    score: float
    rerank: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """The fields by name; `rerank` only if it is set."""
        return {key: value for key, value in self._asdict().items() if value is not None}


@dataclass(frozen=True)
class Segment:
    """The caption of a stretch of a sound, from `start` to `end` in seconds.

    `score` is that of the caption, None if the model was not run. `gate` says why the model's
    caption was replaced: "silence", "low score", or "no words" (an empty caption); None if it was
    kept. `candidates` are the n-best captions with their scores, empty unless several were
    requested. `rerank` is the caption's second score, None without reranking. `heard` is when the
    sounds that the caption names start and end, None if unknown.
    """

    start: float
    end: float
    caption: str
    score: float | None
    gate: Literal["silence", "low score", "no words"] | None = None
    candidates: tuple[Candidate, ...] = ()
    rerank: float | None = None
    heard: tuple[float, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, without `heard`; `rerank`, `gate` and `candidates` only if they are
        set.
        """
        fields: dict[str, Any] = {"start": self.start, "end": self.end, "caption": self.caption}
        fields["score"] = self.score
        if self.rerank is not None:
            fields["rerank"] = self.rerank
        if self.gate is not None:
            fields["gate"] = self.gate
        if self.candidates:
            fields["captions"] = [candidate.as_dict() for candidate in self.candidates]
        return fields


def cut(
    blocks: Iterable[Float32[np.ndarray, " _"]], rate: int, windows: Windows
) -> Iterator[Window]:
    """The windows of a sound that arrives in `blocks` at `rate` Hz.

    Held at any time: the first `whole` seconds, then two windows and a block.
    """
    size, hop = round(windows.window * rate), max(1, round(windows.hop * rate))
    limit = round(windows.whole * rate)
    held: list[np.ndarray] = []
    count = 0
    arriving = iter(blocks)
    for block in arriving:
        held.append(block)
        count += len(block)
        if count > limit:
            yield from _cut_long(np.concatenate(held), arriving, size, hop)
            return
    if count:
        yield Window(0, np.concatenate(held), whole=True)


def _cut_long(
    buffer: np.ndarray, arriving: Iterator[np.ndarray], size: int, hop: int
) -> Iterator[Window]:
    """Windows every `hop` samples and a last one at the end; `buffer` holds at least one window."""
    # The last window may reach back to the start of the one before, so samples are kept from there.
    offset = start = 0
    while True:
        while offset + len(buffer) >= start + size:
            yield Window(start, buffer[start - offset :][:size].copy(), whole=False)
            buffer, offset = buffer[start - offset :], start
            start += hop
        block = next(arriving, None)
        if block is None:
            break
        buffer = np.concatenate([buffer, block])
    end = offset + len(buffer)
    if end > start - hop + size:
        yield Window(end - size, buffer[-size:].copy(), whole=False)


def cover(segments: Sequence[Segment]) -> list[Segment]:
    """The segments with overlaps removed: neighbors meet where the sounds of the first are heard to
    end or those of the second to start or, if neither is known, halfway through their overlap.

    `segments` are in order, and neighbors overlap or touch. Times are rounded to milliseconds.
    """
    borders: list[float] = []
    earliest = segments[0].start
    for left, right in zip(segments, segments[1:], strict=False):
        earliest = max(earliest, _border(left, right))
        borders.append(earliest)
    starts = [segments[0].start, *borders]
    ends = [*borders, segments[-1].end]
    return [
        replace(segment, start=round(start, 3), end=round(end, 3))
        for segment, start, end in zip(segments, starts, ends, strict=True)
    ]


def _border(left: Segment, right: Segment) -> float:
    """Where two neighbors meet: if both are known, between the end of the first one's sounds and
    the start of the second one's.
    """
    middle = (left.end + right.start) / 2
    known = [left.heard[1]] if left.heard and left.heard[1] < middle else []
    known += [right.heard[0]] if right.heard and right.heard[0] > middle else []
    return sum(known) / len(known) if known else middle


def merge(segments: Sequence[Segment]) -> list[Segment]:
    """The segments with neighbors that say the same joined: the caption with the highest score, and
    their mean score.
    """
    merged: list[list[Segment]] = []
    for segment in segments:
        if merged and says_the_same(merged[-1][-1], segment):
            merged[-1].append(segment)
        else:
            merged.append([segment])
    return [_joined(group) for group in merged]


def says_the_same(left: Segment, right: Segment) -> bool:
    """Whether both have the same content words (stemmed, in order), or the same gate."""
    if left.gate or right.gate:
        return left.gate == right.gate
    return gist(left.caption) == gist(right.caption)


def summary(segments: Sequence[Segment]) -> tuple[str, float | None]:
    """A whole sound's text (its different captions, in order), and their mean score over time."""
    groups = distinct(segments)
    if not groups:
        return NOTHING, _mean_score(segments)
    captioned = [segment for segment in segments if segment.gate is None]
    return "; ".join(group[0].caption for group in groups), _mean_score(captioned)


def distinct(segments: Sequence[Segment]) -> list[list[Segment]]:
    """The segments that no gate rejected, grouped by those that say the same, in order of time."""
    groups: dict[tuple[str, ...], list[Segment]] = {}
    for segment in segments:
        if segment.gate is None:
            groups.setdefault(gist(segment.caption), []).append(segment)
    return list(groups.values())


def _joined(group: list[Segment]) -> Segment:
    if len(group) == 1:
        return group[0]
    best = max(group, key=lambda segment: segment.score or 0.0)
    return replace(best, start=group[0].start, end=group[-1].end, score=_mean_score(group))


def _mean_score(segments: Sequence[Segment]) -> float | None:
    scored = [(s.score, s.end - s.start) for s in segments if s.score is not None]
    seconds = sum(weight for _, weight in scored)
    if not seconds:
        return scored[0][0] if scored else None
    return round(sum(score * weight for score, weight in scored) / seconds, 4)
