"""Captions for any number of sounds of any length on this machine, in the order of the sources."""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

from earwitness.audio import AudioSource
from earwitness.caption import Caption, Decoding, best_captions
from earwitness.captioning.captioner import Captioner, Precision
from earwitness.captioning.read_ahead import End, Item, read_ahead
from earwitness.captioning.rerank import Reranker
from earwitness.captioning.segments import (
    NOTHING,
    Candidate,
    Segment,
    Window,
    Windows,
    cover,
    level_db,
    merge,
    summary,
)
from earwitness.captioning.sources import Source
from earwitness.errors import ConfigError, EarwitnessError

SILENCE_DB = -60.0
"""a window whose loudest 0.1 s lies below this level, in dB of full scale, is silence"""


@dataclass(frozen=True)
class Listening:
    """How sounds are cut, which windows are left without a caption, and how one is chosen.

    `timed`: results hold segments even for a sound of one window. `decoding` None: the model's own.
    `reranker` None: the most probable caption is the best.
    """

    windows: Windows = Windows()
    timed: bool = False
    silence_db: float = SILENCE_DB
    min_score: float = 0.0
    decoding: Decoding | None = None
    precision: Precision = "fp32"
    reranker: Reranker | None = None


@dataclass(frozen=True)
class Heard:
    """What became of one sound: segments that cover it, or the reason why it could not be read.

    `whole` says that it was captioned as one clip: then there is one segment.
    """

    name: str
    seconds: float = 0.0
    segments: tuple[Segment, ...] = ()
    whole: bool = True
    error: EarwitnessError | None = None

    def record(self, model: str) -> dict[str, Any]:
        """The result as a JSON object: file, caption, score, model, seconds; segments if cut."""
        caption, score = summary(self.segments)
        record: dict[str, Any] = {"file": self.name, "caption": caption, "score": score}
        record |= {"model": model, "seconds": round(self.seconds, 3)}
        only = self.segments[0].as_dict()
        if not self.whole:
            return record | {"segments": [segment.as_dict() for segment in self.segments]}
        return record | {key: only[key] for key in ("rerank", "gate", "captions") if key in only}


@dataclass
class _InFlight:
    """A sound whose windows are being captioned."""

    source: Source
    segments: list[Segment | None] = field(default_factory=list)
    whole: bool = True
    seconds: float | None = None
    error: EarwitnessError | None = None

    @property
    def done(self) -> bool:
        return self.error is not None or (self.seconds is not None and None not in self.segments)

    def heard(self, timed: bool) -> Heard:
        if self.error is not None:
            return Heard(self.source.name, error=self.error)
        segments = [segment for segment in self.segments if segment is not None]
        covering = cover(segments) if self.whole else merge(cover(segments))
        assert self.seconds is not None
        whole = self.whole and not timed
        return Heard(self.source.name, self.seconds, tuple(covering), whole)


@dataclass(frozen=True)
class _Waiting:
    """A window on its way to the model, and its place in its sound."""

    file: _InFlight
    place: int
    window: Window


def caption_files(
    captioner: Captioner,
    sources: Sequence[Source],
    listening: Listening | None = None,
    *,
    batch_size: int | None = None,
    on_seconds: Callable[[float], None] | None = None,
) -> Generator[list[Heard], None, None]:
    """What is heard in each source, in order; after each batch the sounds that are complete.

    Sounds are decoded ahead by threads; windows of several sounds share a batch of `batch_size`
    (None: what fits the memory). `on_seconds` is told the seconds of sound that went through the
    model or a gate. A caption does not depend on the other sources: sampled ones are drawn one at a
    time, from the seed.
    """
    listening = listening or Listening()
    model = _Model(captioner, listening, batch_size)
    rate = captioner.sample_rate
    flying: deque[_InFlight] = deque()
    waiting: list[_Waiting] = []
    last = -1
    ahead = 4 * (batch_size or min(captioner.batch_limit, 32))
    with closing(read_ahead(sources, rate, listening.windows, ahead=ahead)) as arriving:
        for index, item in arriving:
            if index != last:
                flying.append(_InFlight(sources[index]))
                last = index
            if isinstance(item, Window):
                waiting += _admitted(flying[-1], item, rate, listening, on_seconds)
            else:
                _finish(flying[-1], item)
            if len(waiting) >= model.batch_size:
                model.caption(waiting, rate, on_seconds)
                waiting = []
            if done := _completed(flying, listening.timed):
                yield done
    model.caption(waiting, rate, on_seconds)
    if done := _completed(flying, listening.timed):
        yield done


def caption_segments(
    captioner: Captioner, source: AudioSource, listening: Listening | None = None
) -> list[Segment]:
    """The segments of one sound of any length, in constant memory; they cover every second.

    A sound no longer than a window and a half is one segment, unless `listening` says otherwise.

    Raises:
        AudioError: the sound cannot be read to its end.
    """
    listening = listening or Listening(windows=Windows(whole=15.0))
    timed = replace(listening, timed=True)
    for heard in caption_files(captioner, [Source("sound", source)], timed):
        if heard[0].error is not None:
            raise heard[0].error
        return list(heard[0].segments)
    raise AssertionError("one source gives one result")


def gated(window: Window, rate: int, n_best: Sequence[Caption] | None, min_score: float) -> Segment:
    """The segment of a window at `rate` Hz behind the gates.

    `n_best` are its captions, best first; None says that the window is silent.
    """
    start, end = window.start / rate, (window.start + len(window.samples)) / rate
    if n_best is None:
        return Segment(start, end, NOTHING, None, "silence")
    several = tuple(Candidate(c.text, round(c.score, 4), _rounded(c.rerank)) for c in n_best)
    best = several[0]
    if not best.caption:
        return Segment(start, end, NOTHING, best.score, "no words")
    if n_best[0].score < min_score:
        return Segment(start, end, NOTHING, best.score, "low score")
    told = several if len(several) > 1 else ()
    return Segment(start, end, best.caption, best.score, None, told, best.rerank)


def _rounded(score: float | None) -> float | None:
    return None if score is None else round(score, 4)


def _admitted(
    file: _InFlight,
    window: Window,
    rate: int,
    listening: Listening,
    on_seconds: Callable[[float], None] | None,
) -> list[_Waiting]:
    """The window for the model; nothing where it is silent, which is noted at once."""
    file.whole = window.whole
    place = len(file.segments)
    if level_db(window.samples, rate) >= listening.silence_db:
        file.segments.append(None)
        return [_Waiting(file, place, window)]
    file.segments.append(gated(window, rate, None, listening.min_score))
    if on_seconds is not None:
        on_seconds(len(window.samples) / rate)
    return []


def _finish(file: _InFlight, item: Item) -> None:
    if isinstance(item, End):
        file.seconds = item.seconds
    else:
        assert isinstance(item, EarwitnessError)
        file.error = item


def _completed(flying: deque[_InFlight], timed: bool) -> list[Heard]:
    done = []
    while flying and flying[0].done:
        done.append(flying.popleft().heard(timed))
    return done


class _Model:
    """The captioner with its settings."""

    def __init__(self, captioner: Captioner, listening: Listening, batch_size: int | None) -> None:
        if batch_size is not None and batch_size < 1:
            raise ConfigError(f"expected a batch size of at least 1, got {batch_size}")
        self.captioner, self.listening = captioner, listening
        self.decoding = listening.decoding or captioner.decoding
        self._batch_size = batch_size

    @property
    def batch_size(self) -> int:
        return self._batch_size or self.captioner.batch_hint

    def caption(
        self,
        waiting: list[_Waiting],
        rate: int,
        on_seconds: Callable[[float], None] | None = None,
    ) -> None:
        """Gives each waiting window of a readable sound its segment."""
        rows = [row for row in waiting if row.file.error is None]
        for start in range(0, len(rows), self.batch_size):
            part = rows[start : start + self.batch_size]
            with self.captioner.precision(self.listening.precision):
                captions = best_captions(
                    self.captioner,
                    [row.window.samples for row in part],
                    self.decoding,
                    self.listening.reranker,
                )
            for row, n_best in zip(part, captions, strict=True):
                row.file.segments[row.place] = gated(
                    row.window, rate, n_best, self.listening.min_score
                )
                if on_seconds is not None:
                    on_seconds(len(row.window.samples) / rate)
