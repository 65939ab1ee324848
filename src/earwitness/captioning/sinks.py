"""Where results go: standard output, one file with a journal, or one sidecar per sound."""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from earwitness.captioning.journal import Journal
from earwitness.captioning.subtitles import Subtitles
from earwitness.captioning.writers import (
    Format,
    Record,
    as_json,
    as_lines,
    csv_text,
    rows,
    subtitle_text,
    write,
)
from earwitness.errors import ConfigError, DataError
from earwitness.io.atomic import write_text
from earwitness.io.parquet import need_parquet


class Sink:
    """Takes records as they come. `done` names the sounds that earlier runs have captioned."""

    def __init__(self) -> None:
        self.done: set[str] = set()

    def add(self, records: list[Record]) -> None:
        """Takes finished records; those of files are on disk when this returns."""
        raise NotImplementedError

    def finish(self) -> None:
        """Writes what can only be written at the end of the job."""

    def close(self) -> None:
        """Closes open files, whether or not the job is complete."""


class Printer(Sink):
    """Records on standard output as they come; JSON arrays at the end."""

    def __init__(self, kind: Format, named: bool) -> None:
        """`named`: each line of text starts with the file. Raises ConfigError for parquet."""
        if kind == "parquet":
            raise ConfigError("parquet needs a file; name one with --output")
        super().__init__()
        self._kind: Format = kind
        self._named = named
        self._rows = 0
        if isinstance(sys.stdout, io.TextIOWrapper):
            # A file name may contain bytes that are not text.
            sys.stdout.reconfigure(errors="surrogateescape")

    def add(self, records: list[Record]) -> None:
        """Prints the records."""
        for record in records:
            sys.stdout.write(self._text(record))
        sys.stdout.flush()

    def finish(self) -> None:
        """Closes a JSON array."""
        if self._kind == "json":
            print("\n]" if self._rows else "[]")

    def _text(self, record: Record) -> str:
        if self._kind == "jsonl":
            return as_json(record) + "\n"
        if self._kind == "csv":
            self._rows += 1
            return csv_text([record], header=self._rows == 1)
        if self._kind == "json":
            lines = [as_json(row) for row in rows(record)]
            start = ",\n" if self._rows else "[\n"
            self._rows += len(lines)
            return start + ",\n".join(lines)
        return "\n".join(as_lines(record, self._named)) + "\n"


class JournalledFile(Sink):
    """One file for all sounds. JSONL is its own journal; the others are made from one beside it."""

    def __init__(self, path: Path, kind: Format, settings: str, overwrite: bool) -> None:
        """Raises DataError for a file that this job cannot continue."""
        super().__init__()
        if kind == "parquet":
            need_parquet(path)
        if path.is_dir():
            raise DataError(f"{path}: is a folder; expected the name of a file")
        self._path = path
        self._kind: Format = kind
        place = path if kind == "jsonl" else path.with_name(f"{path.name}.journal.jsonl")
        if overwrite:
            place.unlink(missing_ok=True)
        elif path.exists() and not place.exists():
            raise DataError(
                f"{path}: exists, and {place.name}, the record of its results, does not; "
                "choose another --output, or --overwrite"
            )
        self._journal = Journal(place, settings)
        self.done = self._journal.done

    def add(self, records: list[Record]) -> None:
        """Appends to the journal."""
        self._journal.add(records)

    def finish(self) -> None:
        """Makes the file from the journal."""
        if self._kind != "jsonl" and self.done:
            write(self._path, self._kind, self._journal.records())

    def close(self) -> None:
        """Closes the journal."""
        self._journal.close()


class SubtitleOutput(Sink):
    """The subtitles of one sound, in a file or printed, between lines of speech or alone."""

    def __init__(
        self,
        path: Path | None,
        kind: Literal["srt", "vtt"],
        speech: Subtitles | None,
        overwrite: bool,
        say: Callable[[str], None],
    ) -> None:
        """Raises DataError where the file exists and `overwrite` is not set."""
        if path is not None and path.exists() and not overwrite:
            raise DataError(f"{path}: exists; choose another --output, or --overwrite")
        super().__init__()
        self._path, self._speech, self._say = path, speech, say
        self._kind: Literal["srt", "vtt"] = kind

    def add(self, records: list[Record]) -> None:
        """Writes the subtitles."""
        text, without_gap = subtitle_text(records[0], self._kind, self._speech)
        if self._path is None:
            sys.stdout.write(text)
        else:
            write_text(self._path, text, DataError)
        for problem in self._speech.problems if self._speech else ():
            self._say(f"the lines of speech, {problem}; this cue is left out")
        if without_gap:
            self._say(f"{without_gap} sounds fit no gap between the lines of speech")


class Sidecars(Sink):
    """One small file per sound, which is also the record that the sound is done."""

    def __init__(self, paths: dict[str, Path], kind: Format, overwrite: bool) -> None:
        """`paths` are those of `sidecar_paths`."""
        super().__init__()
        self._paths = paths
        self._kind: Format = kind
        existing = {name for name, path in paths.items() if path.exists()}
        self.done = set() if overwrite else existing

    def add(self, records: list[Record]) -> None:
        """Writes a file for each record."""
        for record in records:
            write(self._paths[record["file"]], self._kind, [record], named=False)
