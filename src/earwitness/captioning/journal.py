"""The record of a job: what is done, safe from interruptions, and what failed."""

import json
from collections.abc import Iterator
from pathlib import Path

from earwitness.captioning.locked import LockedFile
from earwitness.captioning.writers import Record, as_json
from earwitness.errors import DataError
from earwitness.io.kinds import is_object


class Journal:
    """An append-only JSONL file of results: each sound in it is done.

    Opening it takes a lock, held at most until the process ends, and removes an incomplete last
    line.
    """

    def __init__(self, path: Path, settings: str, overwrite: bool = False) -> None:
        """`settings` is the fingerprint that all records of the file share.

        `overwrite` empties the file, once the lock shows that no other run writes to it.

        Raises:
            DataError: the file cannot be written, is in use, or is not a journal of these settings.
        """
        self.path, self._settings = path, settings
        self.done: set[str] = set()
        self._file = LockedFile(path)
        try:
            if overwrite:
                self._file.cut(0)
            self.done = self._read()
        except DataError:
            self._file.close()
            raise

    def add(self, records: list[Record]) -> None:
        """Appends the records; they are on disk when this returns. Raises DataError."""
        lines = [as_json(record | {"settings": self._settings}) + "\n" for record in records]
        self._file.append("".join(lines).encode())
        self.done.update(record["file"] for record in records)

    def records(self) -> Iterator[Record]:
        """All results, including those of earlier runs, without `settings`."""
        with self.path.open("rb") as file:
            for line in file:
                record = json.loads(line)
                record.pop("settings", None)
                yield record

    def close(self) -> None:
        """Releases the lock; a journal without results leaves no file."""
        self._file.close(remove=not self.done)

    def _read(self) -> set[str]:
        done: set[str] = set()
        whole = 0
        with self._file.reader() as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                record = _record(line)
                if record is None:
                    raise DataError(
                        f"{self.path}: line {number} is not a result of earwitness caption; "
                        "choose another --output, or --overwrite"
                    )
                if record["settings"] != self._settings:
                    raise DataError(
                        f"{self.path}: holds results of another model or other settings; repeat "
                        "the first command to continue, or choose another --output, or --overwrite"
                    )
                done.add(record["file"])
                whole += len(line)
        if not done and whole < self._file.size and not self._torn():
            raise DataError(
                f"{self.path}: exists and is not a result of earwitness caption; "
                "choose another --output, or --overwrite"
            )
        if whole < self._file.size:
            self._file.cut(whole)
        return done

    def _torn(self) -> bool:
        """Whether the only line is the start of a record that was never finished."""
        with self._file.reader() as file:
            return file.read(9) in (b'{"file": ', b"")


class Failures:
    """The sounds that could not be captioned and why, one JSON object per line."""

    def __init__(self, path: Path) -> None:
        """Drops an earlier record: those sounds are tried again.

        Raises:
            DataError: the file cannot be written, is in use, or is not a record of failures.
        """
        self.path = path
        self.broken = False
        """set by the job once nothing more can be written to this file"""
        self._file = LockedFile(path)
        try:
            with self._file.reader() as file:
                if not _is_failure(file.readline()):
                    raise DataError(
                        f"{path}: exists and is not a list of failures of earwitness caption; "
                        "choose another --failures"
                    )
            self._file.cut(0)
        except DataError:
            self._file.close()
            raise

    def add(self, file: str, error: str) -> None:
        """Appends one failure. Raises DataError."""
        self._file.append((as_json({"file": file, "error": error}) + "\n").encode())

    def close(self) -> None:
        """Releases the lock; removes the file if nothing failed."""
        self._file.close(remove=self._file.size == 0)


def _is_failure(line: bytes) -> bool:
    """Whether a file that begins with `line` is a list of failures; a truncated line counts too."""
    if not line or (not line.endswith(b"\n") and line[:9] == b'{"file": '[: len(line)]):
        return True
    try:
        record = json.loads(line)
    except ValueError:
        return False
    return is_object(record) and record.keys() == {"file", "error"}


def _record(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    wanted = {"file", "caption", "score", "model", "seconds", "settings"}
    return record if is_object(record) and wanted <= record.keys() else None
