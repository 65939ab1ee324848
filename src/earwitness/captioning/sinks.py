"""Where results go: standard output, one file with a journal, or one sidecar per sound."""

import io
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from earwitness.captioning.journal import Journal
from earwitness.captioning.locked import is_full, need_regular
from earwitness.captioning.subtitles import Placement, Subtitles
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
from earwitness.errors import AudioError, ConfigError, DataError
from earwitness.io.atomic import write_text
from earwitness.io.names import for_terminal, is_text
from earwitness.io.parquet import need_parquet


class Sink:
    """Receives records as they come. `done` names the sounds that earlier runs have captioned."""

    def __init__(self) -> None:
        self.done: set[str] = set()
        self.refused: dict[str, str] = {}
        """the sounds whose own file cannot be written, and why; the job skips them"""

    def add(self, records: list[Record]) -> None:
        """Adds finished records; if written to a file, they are on disk when this returns.

        Raises DataError if the job cannot continue.
        """
        raise NotImplementedError

    def earlier(self) -> Iterator[Record]:
        """The records of earlier runs, if the output holds whole records."""
        return iter(())

    def failed(self, name: str, sentence: str) -> None:
        """Records a sound without a caption, if the output has a place for it."""

    def finish(self) -> None:
        """Writes what can only be written at the end of the job."""

    def close(self) -> None:
        """Closes open files, whether or not the job is complete."""


class Printer(Sink):
    """Records on standard output as they come; JSON arrays at the end."""

    def __init__(self, kind: Format, named: bool) -> None:
        """`named`: each line of text starts with the file. Raises ConfigError for parquet."""
        if kind == "parquet":
            raise ConfigError("parquet needs a file; give one with --output")
        super().__init__()
        self._kind: Format = kind
        self._named = named
        self._rows = 0
        self._terminal = sys.stdout.isatty()
        out: object = sys.stdout
        if isinstance(out, io.TextIOWrapper):
            # A file name may contain bytes that are not text; a terminal may lack characters.
            if self._terminal:
                out.reconfigure(errors="backslashreplace")
            else:
                out.reconfigure(encoding="utf-8", errors="surrogateescape")

    def add(self, records: list[Record]) -> None:
        """Prints the records."""
        for record in records:
            text = self._text(record)
            print_out(for_terminal(text, kept="\n\t") if self._terminal else text)

    def finish(self) -> None:
        """Closes a JSON array."""
        if self._kind == "json":
            print_out("\n]\n" if self._rows else "[]\n")

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
    """One file for all sounds. JSONL is its own journal; other formats are written from one."""

    def __init__(self, path: Path, kind: Format, settings: str, overwrite: bool) -> None:
        """Raises DataError if this job cannot continue the file."""
        super().__init__()
        if kind == "parquet":
            need_parquet(path)
        need_regular(path)
        self._path = path
        self._kind: Format = kind
        place = path if kind == "jsonl" else path.with_name(f"{path.name}.journal.jsonl")
        if not overwrite and path.exists() and not place.exists():
            raise DataError(
                f"{path}: exists, but {place.name}, the record of its results, does not; "
                "choose another --output, or --overwrite"
            )
        self._journal = Journal(place, settings, overwrite)
        self.done = self._journal.done

    def add(self, records: list[Record]) -> None:
        """Appends to the journal."""
        self._journal.add(records)

    def earlier(self) -> Iterator[Record]:
        """The records in the journal."""
        return self._journal.records()

    def finish(self) -> None:
        """Writes the file from the journal."""
        if self._kind != "jsonl" and self.done:
            exact = not all(is_text(name) for name in self.done)
            write(self._path, self._kind, self._journal.records(), exact=exact)

    def close(self) -> None:
        """Closes the journal."""
        self._journal.close()


@dataclass(frozen=True)
class Speech:
    """Where the subtitles of a sound's speech come from, and how sounds are placed between them.

    `lines` returns them by the sound's name. `say` receives notes on anything odd about them.
    """

    lines: Callable[[str], Subtitles]
    say: Callable[[str], None]
    placement: Placement | None = None

    def with_sounds(self, record: Record, kind: Literal["srt", "vtt"]) -> str:
        """The subtitles of a sound with its speech. Raises AudioError."""
        name = record["file"]
        speech = self.lines(name)
        text, without_gap = subtitle_text(record, kind, speech, self.placement)
        for problem in speech.problems:
            self.say(f"{name}: speech subtitles, {problem}; this cue is skipped")
        if without_gap:
            sounds = "1 sound fits" if without_gap == 1 else f"{without_gap} sounds fit"
            self.say(f"{name}: {sounds} no gap between the lines of speech")
        return text


class SubtitleOutput(Sink):
    """The subtitles of one sound, in a file or printed, between lines of speech or alone."""

    def __init__(
        self,
        path: Path | None,
        kind: Literal["srt", "vtt"],
        speech: Speech | None,
        overwrite: bool,
    ) -> None:
        """Raises DataError if the file exists and `overwrite` is not set."""
        if path is not None:
            need_regular(path)
        if path is not None and path.exists() and not overwrite:
            raise DataError(f"{path}: exists; choose another --output, or --overwrite")
        super().__init__()
        self._path, self._speech = path, speech
        self._kind: Literal["srt", "vtt"] = kind

    def add(self, records: list[Record]) -> None:
        """Writes the subtitles."""
        if self._speech is None:
            text = subtitle_text(records[0], self._kind)[0]
        else:
            text = self._speech.with_sounds(records[0], self._kind)
        if self._path is None:
            print_out(text)
        else:
            write_text(self._path, text, DataError)


class Sidecars(Sink):
    """One small file per sound, which also marks the sound as done."""

    def __init__(
        self, paths: dict[str, Path], kind: Format, overwrite: bool, speech: Speech | None = None
    ) -> None:
        """`paths` are those of `sidecar_paths`; `speech` is for subtitles."""
        super().__init__()
        self._paths, self._speech = paths, speech
        self._kind: Format = kind
        existing = {name for name, path in paths.items() if os.path.exists(path)}
        self.done = set() if overwrite else existing

    def add(self, records: list[Record]) -> None:
        """Writes a file for each record."""
        for record in records:
            path = self._paths[record["file"]]
            try:
                need_regular(path)
                self._write(path, record)
            except AudioError as error:
                self.refused[record["file"]] = str(error)
            except DataError as error:
                if is_full(error.__context__):
                    raise
                self.refused[record["file"]] = str(error)

    def _write(self, path: Path, record: Record) -> None:
        if self._speech is not None and self._kind in ("srt", "vtt"):
            write_text(path, self._speech.with_sounds(record, self._kind), DataError)
        else:
            write(path, self._kind, [record], named=False)


def print_out(text: str) -> None:
    """Prints `text` to standard output and flushes it.

    Raises:
        DataError: standard output is closed or full.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"standard output: cannot be written ({reason})") from None
