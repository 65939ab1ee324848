"""The record of a job: what is done, safe against interruption, and what failed."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from earwitness.captioning.writers import Record, as_json
from earwitness.errors import DataError


class Journal:
    """A JSONL file of results that is only appended to: each sound in it is done.

    Opening it removes an incomplete last line and takes a lock that ends with the process.
    """

    def __init__(self, path: Path, settings: str) -> None:
        """`settings` is the fingerprint that all records of the file share.

        Raises:
            DataError: the file cannot be written, is in use, is not a journal, or has other settings.
        """
        self.path, self._settings = path, settings
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
        except OSError as error:
            raise DataError(f"{path}: cannot be written ({error.strerror})") from None
        self.done: set[str] = set()
        try:
            _lock(self._file, path)
            self.done = self._read()
        except DataError:
            self._file.close()
            raise

    def add(self, records: list[Record]) -> None:
        """Appends the records; they are on disk when this returns."""
        lines = [as_json(record | {"settings": self._settings}) + "\n" for record in records]
        try:
            self._file.write("".join(lines).encode())
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise DataError(f"{self.path}: cannot be written ({error.strerror})") from None
        self.done.update(record["file"] for record in records)

    def records(self) -> Iterator[Record]:
        """All results, those of earlier runs included, without `settings`."""
        with self.path.open("rb") as file:
            for line in file:
                record = json.loads(line)
                record.pop("settings", None)
                yield record

    def close(self) -> None:
        """Releases the lock; a journal without a result leaves no file."""
        if not self.done:
            self.path.unlink(missing_ok=True)
        self._file.close()

    def _read(self) -> set[str]:
        self._file.seek(0)
        done: set[str] = set()
        whole = 0
        for number, line in enumerate(self._file, start=1):
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
                    f"{self.path}: holds results of another model or other settings; repeat the "
                    "first command to continue, or choose another --output, or --overwrite"
                )
            done.add(record["file"])
            whole += len(line)
        if not done and whole < self._file.seek(0, os.SEEK_END) and not self._torn():
            raise DataError(
                f"{self.path}: exists and is not a result of earwitness caption; "
                "choose another --output, or --overwrite"
            )
        self._file.truncate(whole)
        return done

    def _torn(self) -> bool:
        """Whether the only line is the start of a record that was never finished."""
        self._file.seek(0)
        return self._file.read(9) in (b'{"file": ', b"")


class Failures:
    """The sounds that could not be captioned and why, one JSON object per line."""

    def __init__(self, path: Path) -> None:
        """An earlier record is dropped: those sounds are tried again. Raises DataError."""
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
        except OSError as error:
            raise DataError(f"{path}: cannot be written ({error.strerror})") from None

    def add(self, file: str, error: str) -> None:
        """Appends one failure."""
        with self.path.open("ab") as stream:
            stream.write((as_json({"file": file, "error": error}) + "\n").encode())
            stream.flush()
            os.fsync(stream.fileno())


def _lock(file: BinaryIO, path: Path) -> None:
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise DataError(
            f"{path}: another run is writing to it; wait until it ends, or use --shard i/n"
        ) from None


def _record(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    wanted = {"file", "caption", "score", "model", "seconds", "settings"}
    return record if isinstance(record, dict) and wanted <= record.keys() else None
