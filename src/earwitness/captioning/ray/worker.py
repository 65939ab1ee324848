"""What runs in an actor: a captioner that stays loaded; rows of sounds in, rows of captions out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from earwitness.caption import CaptionCalls
from earwitness.captioning.choice import ModelChoice
from earwitness.captioning.columns import row_of, schema
from earwitness.captioning.duplicates import fingerprint
from earwitness.captioning.events import as_rows
from earwitness.captioning.local import caption_files
from earwitness.captioning.pipeline import Outcome
from earwitness.captioning.ray.places import sources_in
from earwitness.captioning.ray.remote import RemoteFile
from earwitness.captioning.sources import Source
from earwitness.data.prepare.packed import PackedFile
from earwitness.errors import EarwitnessError, unexpected
from earwitness.io.digests import sha256_of
from earwitness.models.sound_events import FindsEvents, events_in

if TYPE_CHECKING:
    import pyarrow
    from fsspec import AbstractFileSystem


@dataclass(frozen=True)
class Extras:
    """What rows hold besides captions.

    `events`: the sounds that the model's class head hears (none without a head) with a probability
    of at least `threshold`. `duplicates`: the SHA-256 and the audio fingerprint of each file.
    """

    events: bool = True
    duplicates: bool = False
    threshold: float = 0.5


@dataclass(frozen=True)
class Work:
    """All that an actor needs to know; sent to other machines."""

    choice: ModelChoice
    timed: bool = False
    extras: Extras = Extras()
    files: "AbstractFileSystem | None" = None


class Worker:
    """A model in a Ray Data actor. A sound that fails becomes a row; the actor continues."""

    def __init__(self, work: Work) -> None:
        """Loads the model. Raises CheckpointError and ConfigError."""
        self._work = work
        self._captioner, self._settings = work.choice.load(work.timed)
        with self._captioner.precision(self._settings.precision):
            pass
        self._classes: FindsEvents | None = None
        if work.extras.events and isinstance(self._captioner, CaptionCalls):
            self._classes = self._captioner.classes

    def __call__(self, table: "pyarrow.Table") -> "pyarrow.Table":
        """One row of `columns.schema` per sound, in order, plus the other columns of `table`."""
        import pyarrow

        sources, kept = sources_in(table, self._work.files)
        again = [source.again() for source in sources]
        rows = [
            row_of(self._with_extras(outcome, copy))
            for outcome, copy in zip(self._captioned(sources), again, strict=True)
        ]
        found = pyarrow.Table.from_pylist(rows, schema=schema())
        for name in kept:
            if name not in found.column_names:
                found = found.append_column(name, table.column(name))
        return found

    def _captioned(self, sources: Sequence[Source]) -> Iterator[Outcome]:
        try:
            size = self._work.choice.batch_size
            batches = caption_files(self._captioner, sources, self._settings, batch_size=size)
            found = [one.outcome(self._captioner.name) for batch in batches for one in batch]
        except EarwitnessError as error:
            if len(sources) == 1:
                yield Outcome(sources[0].name, None, str(error))
                return
            for source in sources:
                yield from self._captioned([source.again()])
            return
        yield from found

    def _with_extras(self, outcome: Outcome, source: Source) -> Outcome:
        extras, record = self._work.extras, outcome.record
        if record is None:
            return outcome
        more: dict[str, Any] = {}
        try:
            if self._classes is not None:
                audio = source.again().audio
                more["events"] = as_rows(events_in(self._classes, audio, extras.threshold))
            if extras.duplicates:
                more["sha256"] = _content(source.again())
                more["fingerprint"] = fingerprint(source.again().audio)
        except EarwitnessError as error:
            return Outcome(outcome.name, None, str(error), outcome.notes)
        except Exception as error:
            return Outcome(outcome.name, None, str(unexpected(outcome.name, error)))
        more = {name: value for name, value in more.items() if value is not None}
        return outcome._replace(record=record | more)


def _content(source: Source) -> str:
    """The SHA-256 of a sound's file. Raises OSError."""
    if isinstance(source.audio, bytes):
        return sha256(source.audio).hexdigest()
    assert isinstance(source.audio, str | PackedFile | RemoteFile)
    return sha256_of(source.audio)
