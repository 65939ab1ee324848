"""Captions for any number of sounds of any length on this machine, in source order."""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace

from earwitness.audio import AudioSource
from earwitness.caption import Decoding, best_captions
from earwitness.captioning.captioner import Captioner
from earwitness.captioning.choice import ModelChoice
from earwitness.captioning.pipeline import (
    CaptionSettings,
    OpenWindow,
    Outcome,
    SoundInProgress,
    SoundResult,
)
from earwitness.captioning.read_ahead import End, Item, read_ahead
from earwitness.captioning.segments import Segment, Window, Windows
from earwitness.captioning.sources import Source
from earwitness.errors import ConfigError, EarwitnessError, unexpected

_BATCHES_AHEAD = 4
_MOST_GATHERED = 32
"""the most clips per batch that reading ahead prepares for, even if more fit"""


def caption_files(
    captioner: Captioner,
    sources: Sequence[Source],
    settings: CaptionSettings | None = None,
    *,
    batch_size: int | None = None,
    on_seconds: Callable[[float], None] | None = None,
) -> Generator[list[SoundResult], None, None]:
    """The result of each source, in order; yields completed sounds after each batch.

    Threads decode sounds ahead of time; windows of several sounds share a batch of `batch_size`
    (None: as many as fit in memory). `on_seconds` is called with the seconds of sound that passed
    through the model or a gate. A caption does not depend on the other sources.

    Raises:
        ConfigError: `batch_size` is below 1, or a single window does not fit in memory.
    """
    settings = settings or CaptionSettings()
    if batch_size is not None and batch_size < 1:
        raise ConfigError(f"expected a batch size of at least 1, got {batch_size}")
    rate = captioner.sample_rate
    in_progress: deque[SoundInProgress] = deque()
    current: SoundInProgress | None = None
    waiting: list[OpenWindow] = []
    last = -1
    ahead = _BATCHES_AHEAD * (batch_size or min(captioner.batch_limit, _MOST_GATHERED))
    reading = read_ahead(sources, rate, settings.windows, ahead=ahead, track=settings.track)
    with closing(reading) as arriving:
        for index, item in arriving:
            if current is None or index != last:
                current = SoundInProgress(sources[index].name, settings, rate, on_seconds)
                in_progress.append(current)
                last = index
            waiting += _take(current, item)
            if len(waiting) >= (batch_size or captioner.batch_hint):
                _caption(captioner, waiting, settings, batch_size)
                waiting = []
            if done := _completed(in_progress):
                yield done
    _caption(captioner, waiting, settings, batch_size)
    if done := _completed(in_progress):
        yield done


def outcomes(
    choice: ModelChoice,
    sources: Sequence[Source],
    timed: bool,
    *,
    on_ready: Callable[[], None],
    on_seconds: Callable[[float], None],
) -> Generator[list[Outcome], None, None]:
    """The outcome of each source with the model of `choice`, batch by batch, in order.

    `on_ready` is called when the model is loaded. Raises the errors of `ModelChoice.load` and
    `caption_files`.
    """
    captioner, settings = choice.load(timed)
    on_ready()
    arriving = caption_files(
        captioner, sources, settings, batch_size=choice.batch_size, on_seconds=on_seconds
    )
    with closing(arriving):
        for results in arriving:
            yield [result.outcome(captioner.name) for result in results]


def caption_segments(
    captioner: Captioner, source: AudioSource, settings: CaptionSettings | None = None
) -> list[Segment]:
    """The segments of one sound of any length, in constant memory; they cover every second.

    A sound no longer than a window and a half is one segment, unless `settings` say otherwise.

    Raises:
        AudioError: the sound cannot be read in full.
    """
    settings = settings or CaptionSettings(windows=Windows(whole=15.0))
    timed = replace(settings, timed=True)
    for results in caption_files(captioner, [Source("sound", source)], timed):
        if results[0].error is not None:
            raise results[0].error
        return list(results[0].segments)
    raise AssertionError("one source gives one result")


def _take(sound: SoundInProgress, item: Item) -> list[OpenWindow]:
    """Records an item of a sound; returns the window that the model must caption, if any."""
    if sound.error is not None:
        return []
    if isinstance(item, Window):
        opened = sound.admit(item)
        return [] if opened is None else [opened]
    if isinstance(item, End):
        sound.ended, sound.notes = True, item.notes
    else:
        sound.error = item
    return []


def _caption(
    captioner: Captioner,
    waiting: list[OpenWindow],
    settings: CaptionSettings,
    batch_size: int | None,
) -> None:
    """Gives each waiting window of a readable sound its segment."""
    rows = [row for row in waiting if row.sound.error is None]
    decoding = settings.decoding or captioner.decoding
    while rows:
        size = batch_size or captioner.batch_hint
        batch, rows = rows[:size], rows[size:]
        try:
            _caption_batch(captioner, batch, settings, decoding)
        except EarwitnessError:
            raise
        except Exception as error:
            _blame(captioner, batch, settings, decoding, error)


def _caption_batch(
    captioner: Captioner, batch: list[OpenWindow], settings: CaptionSettings, decoding: Decoding
) -> None:
    waveforms = [row.window.samples for row in batch]
    with captioner.precision(settings.precision):
        found = best_captions(captioner, waveforms, decoding, settings.reranker)
    for row, n_best in zip(batch, found, strict=True):
        row.close(n_best)


def _blame(
    captioner: Captioner,
    batch: list[OpenWindow],
    settings: CaptionSettings,
    decoding: Decoding,
    error: Exception,
) -> None:
    """Captions the windows of a failed batch one by one; one that fails ends its sound."""
    for row in batch:
        if row.sound.error is not None:
            continue
        try:
            if len(batch) > 1:
                _caption_batch(captioner, [row], settings, decoding)
                continue
        except EarwitnessError:
            raise
        except Exception as own:
            error = own
        row.sound.error = unexpected(row.sound.name, error)


def _completed(in_progress: deque[SoundInProgress]) -> list[SoundResult]:
    done: list[SoundResult] = []
    while in_progress and in_progress[0].done:
        done.append(in_progress.popleft().result())
    return done
