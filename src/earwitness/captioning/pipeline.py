"""From windows to a result, the same for the command line, service and page.

Windows go through the silence gate (`SoundInProgress.admit`), the remaining ones go through the
model in batches, the other gates reject captions that say nothing (`gated`), and neighboring
segments are aligned and merged. How windows are fed and batches are run is up to the caller:
threads (`local`) or a queue (the service).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from earwitness.audio.levels import SILENCE_DB
from earwitness.caption import Caption, Decoding, Reranks, default_rerank
from earwitness.captioning.captioner import Captioner, Precision
from earwitness.captioning.options import CaptionOptions
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
from earwitness.config import validate
from earwitness.errors import EarwitnessError


@dataclass(frozen=True)
class CaptionSettings:
    """How sounds are cut, which windows get no caption, and how a caption is chosen.

    `timed`: results hold segments even for a sound of one window. `decoding` None: the model's own.
    `reranker` None: the most probable caption is the best. `track`: the audio track, by number or
    language; None: the file's default.
    """

    windows: Windows = Windows()
    timed: bool = False
    silence_db: float = SILENCE_DB
    min_score: float = 0.0
    decoding: Decoding | None = None
    precision: Precision = "fp32"
    reranker: Reranks | None = None
    track: int | str | None = None


def settings_for(
    options: CaptionOptions,
    captioner: Captioner,
    *,
    timed: bool = False,
    longest: float | None = None,
    silence_db: float = SILENCE_DB,
    reranker: Reranks | None = None,
) -> CaptionSettings:
    """The settings given by `options`, completed with the model's own.

    Raises:
        ConfigError: a value is out of range.
        CheckpointError: the model's own minimum score is not a number from 0 to 1.
    """
    timed = timed or options.implies_times
    own = captioner.decoding.model_dump()
    decoding = validate(Decoding, own | options.search_changes(), "the caption search")
    if options.rerank is None and reranker is None:
        reranker = default_rerank(captioner, decoding)
    return CaptionSettings(
        Windows(*options.lengths(timed, longest)),
        timed,
        silence_db if options.silence is None else options.silence,
        captioner.min_score if options.min_score is None else options.min_score,
        decoding,
        reranker=reranker,
        track=options.track,
    )


@dataclass(frozen=True)
class SoundResult:
    """The result for one sound: segments that cover it, or the reason why it could not be read.

    `whole`: it was captioned as one clip and has one segment. `notes` are sentences on anything odd
    about a sound that could be read anyway.
    """

    name: str
    seconds: float = 0.0
    segments: tuple[Segment, ...] = ()
    whole: bool = True
    error: EarwitnessError | None = None
    notes: tuple[str, ...] = ()

    def record(self, model: str) -> dict[str, Any]:
        """The result as a JSON object: file, caption, score, model, seconds; notes if there are
        any; segments if cut.
        """
        caption, score = summary(self.segments)
        record: dict[str, Any] = {"file": self.name, "caption": caption, "score": score}
        record |= {"model": model, "seconds": round(self.seconds, 3)}
        record |= {"notes": list(self.notes)} if self.notes else {}
        only = self.segments[0].as_dict()
        if not self.whole:
            return record | {"segments": [segment.as_dict() for segment in self.segments]}
        return record | {key: only[key] for key in ("rerank", "gate", "captions") if key in only}

    def outcome(self, model: str) -> "Outcome":
        """The result as plain data, for outputs and other machines."""
        if self.error is not None:
            return Outcome(self.name, None, str(self.error), self.notes)
        return Outcome(self.name, self.record(model), None, self.notes)


class Outcome(NamedTuple):
    """What an engine returns for one sound: its record, or a sentence on why there is none."""

    name: str
    record: dict[str, Any] | None
    error: str | None = None
    notes: tuple[str, ...] = ()


@dataclass
class _Place:
    """The place of a window among the segments of its sound; None until it is captioned."""

    segment: Segment | None = None


@dataclass(frozen=True)
class OpenWindow:
    """A window that passed the silence gate and waits for its captions."""

    sound: "SoundInProgress"
    window: Window
    place: _Place

    def close(self, n_best: Sequence[Caption]) -> None:
        """Sets the window's segment; `n_best` are its captions, best first."""
        self.sound.close(self.window, self.place, n_best)


@dataclass
class SoundInProgress:
    """One sound on its way through the pipeline."""

    name: str
    settings: CaptionSettings
    rate: int
    on_seconds: Callable[[float], None] | None = None
    """called with the seconds of each window once it has its segment"""
    seconds: float = 0.0
    """the end of the windows so far"""
    whole: bool = True
    error: EarwitnessError | None = None
    ended: bool = False
    notes: tuple[str, ...] = ()
    _places: list[_Place] = field(default_factory=list[_Place])

    def admit(self, window: Window) -> OpenWindow | None:
        """The window for the model; None if it is silent and so already has its segment."""
        self.whole = window.whole
        self.seconds = (window.start + len(window.samples)) / self.rate
        place = _Place()
        self._places.append(place)
        if level_db(window.samples, self.rate) >= self.settings.silence_db:
            return OpenWindow(self, window, place)
        self.close(window, place, None)
        return None

    def close(self, window: Window, place: _Place, n_best: Sequence[Caption] | None) -> None:
        """Puts the segment of a window in its place; `n_best` is None for silence."""
        place.segment = gated(window, self.rate, n_best, self.settings.min_score)
        if self.on_seconds is not None:
            self.on_seconds(len(window.samples) / self.rate)

    def note(self, sentence: str) -> None:
        """Adds a sentence on anything odd about the sound; repeats are ignored."""
        if sentence not in self.notes:
            self.notes = (*self.notes, sentence)

    @property
    def done(self) -> bool:
        """Whether there is a result: all windows have their segments, or there is an error."""
        if self.error is not None or not self.ended:
            return self.error is not None
        return all(place.segment is not None for place in self._places)

    def settled(self) -> list[Segment]:
        """The merged segments that no later window can change; each is returned only once."""
        final, held = settled(self._segments())
        self._places = [_Place(segment) for segment in held]
        return final

    def rest(self) -> list[Segment]:
        """The merged segments that `settled` has not returned, at the end of the sound."""
        return merge(cover(self._segments()))

    def result(self) -> SoundResult:
        """The result of a sound that is done and on which `settled` was never called."""
        if self.error is not None:
            return SoundResult(self.name, error=self.error)
        return self.result_of(self.rest())

    def result_of(self, segments: Sequence[Segment]) -> SoundResult:
        """The result of a sound whose segments were taken with `settled` and `rest`."""
        whole = self.whole and not self.settings.timed
        return SoundResult(self.name, self.seconds, tuple(segments), whole, None, self.notes)

    def _segments(self) -> list[Segment]:
        return [place.segment for place in self._places if place.segment is not None]


def gated(window: Window, rate: int, n_best: Sequence[Caption] | None, min_score: float) -> Segment:
    """The segment of a window at `rate` Hz after the gates.

    `n_best` are its captions, best first; None for silence.
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
    candidates = _by_score(several) if len(several) > 1 else ()
    heard = n_best[0].heard
    times = (start + heard[0], start + heard[1]) if heard else None
    return Segment(start, end, best.caption, best.score, None, candidates, best.rerank, times)


def _by_score(several: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
    """The candidates by score, highest first; if they were reranked, in the reranker's order.

    A search with a length penalty, and the class head, choose by more than the score.
    """
    if any(one.rerank is not None for one in several):
        return several
    return tuple(sorted(several, key=lambda one: one.score, reverse=True))


def settled(held: list[Segment]) -> tuple[list[Segment], list[Segment]]:
    """The merged segments of `held` that later ones cannot change, and those to keep holding."""
    covering = cover(held)
    merged = merge(covering)
    first = next(i for i, segment in enumerate(covering) if segment.start >= merged[-1].start)
    return merged[:-1], [replace(held[first], start=covering[first].start), *held[first + 1 :]]


def _rounded(score: float | None) -> float | None:
    return None if score is None else round(score, 4)
