"""A folder of parquet parts, local or on any fsspec file system: one row per sound, failed or not.

Each part is written atomically and holds whole rows, so that the parts are their own record: the
same command continues with the missing sounds. Sounds that failed are tried again.
"""

# pyright: basic
# (pyarrow and fsspec have no types.)

import io
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earwitness.captioning.columns import name_of, outcome_of, row_of, schema
from earwitness.captioning.locked import LockedFile
from earwitness.captioning.pipeline import Outcome
from earwitness.captioning.ray.remote import filesystem_of
from earwitness.captioning.sinks import Sink
from earwitness.captioning.writers import Record
from earwitness.errors import DataError, one_line
from earwitness.io.atomic import replacing
from earwitness.io.parquet import need_parquet
from earwitness.io.text_files import url_in

if TYPE_CHECKING:
    import pyarrow

PART_ROWS = 10_000
_PART_SECONDS = 60.0
_NAME = re.compile(r"part-(\d+)\.parquet")
_SETTINGS = b"earwitness.settings"


class Parts(Sink):
    """Parquet files in a folder; a part is written every `part_rows` rows, and every minute."""

    def __init__(
        self, path: Path, settings: str, overwrite: bool = False, part_rows: int = PART_ROWS
    ) -> None:
        """`settings` is the fingerprint that all rows of the folder share.

        Raises:
            DataError: the folder cannot be used, another run writes to it, or it holds other rows.
        """
        super().__init__()
        from fsspec.implementations.local import LocalFileSystem

        self._arrow, self._parquet = need_parquet(path)
        self._url = url_in(str(path))
        if self._url and self._url.startswith("file://"):
            # A Path keeps only one of three slashes.
            path, self._url = Path("/" + self._url[7:]), None
        self._files, self._root = LocalFileSystem(), os.path.abspath(path)
        if self._url is not None:
            self._files, self._root = filesystem_of(self._url)
        self._settings, self._part_rows = settings, part_rows
        self._rows: list[dict[str, Any]] = []
        self._last = time.monotonic()
        if self._url is None and path.exists() and not path.is_dir():
            raise DataError(f"{path}: is a file; expected a folder for parquet parts")
        self._lock = None if self._url else LockedFile(path / ".lock")
        try:
            self._next = 1 + max((number for number, _ in self._parts()), default=0)
            for _, place in list(self._parts()):
                if overwrite:
                    self._files.rm_file(place)
                else:
                    self._take_over(place)
        except OSError as error:
            self._end()
            raise DataError(f"{path}: cannot be read ({one_line(error)})") from None
        except DataError:
            self._end()
            raise

    def add(self, records: list[Record]) -> None:
        """Adds finished records; they are on disk within a minute, or at the end."""
        for record in records:
            self._rows.append(row_of(Outcome(record["file"], record)))
            self.done.add(record["file"])
        self._flush_if_due()

    def failed(self, name: str, sentence: str) -> None:
        """Adds a row with the name and the error."""
        self._rows.append(row_of(Outcome(name, None, sentence)))
        self._flush_if_due()

    def earlier(self) -> Iterator[Record]:
        """The records in the parts."""
        for _, place in self._parts():
            for row in self._read(place).to_pylist():
                record = outcome_of(row).record
                if record is not None:
                    yield record

    def finish(self) -> None:
        """Writes the last part."""
        self._flush()

    def close(self) -> None:
        """Writes pending rows and releases the folder."""
        try:
            self._flush()
        finally:
            self._end()

    def _end(self) -> None:
        if self._lock is not None:
            self._lock.close(remove=True)
            self._lock = None

    def _flush_if_due(self) -> None:
        full = len(self._rows) >= self._part_rows
        if full or time.monotonic() - self._last >= _PART_SECONDS:
            self._flush()

    def _flush(self) -> None:
        rows, self._rows = self._rows, []
        self._last = time.monotonic()
        if rows:
            place = f"{self._root}/part-{self._next:06}.parquet"
            self._next += 1
            self._write(place, self._arrow.Table.from_pylist(rows, schema=schema()))

    def _write(self, place: str, table: "pyarrow.Table") -> None:
        content = io.BytesIO()
        marked = table.replace_schema_metadata({_SETTINGS: self._settings.encode()})
        self._parquet.write_table(marked, content, compression="zstd")
        if self._url is None:
            with replacing(Path(place), DataError) as file:
                file.write(content.getbuffer())
            return
        try:
            self._files.makedirs(self._root, exist_ok=True)
            self._files.pipe_file(place, content.getvalue())
        except OSError as error:
            raise DataError(f"{place}: cannot be written ({one_line(error)})") from None

    def _parts(self) -> Iterator[tuple[int, str]]:
        """The number and path of each existing part, in order."""
        if not self._files.isdir(self._root):
            return
        self._files.invalidate_cache()
        for place in sorted(map(str, self._files.ls(self._root, detail=False))):
            found = _NAME.fullmatch(place.rpartition("/")[2])
            if found:
                yield int(found[1]), place

    def _read(self, place: str) -> "pyarrow.Table":
        try:
            with self._files.open(place, "rb") as file:
                return self._parquet.read_table(file)
        except self._arrow.ArrowInvalid as error:
            raise DataError(f"{place}: not a readable parquet file ({one_line(error)})") from None

    def _take_over(self, place: str) -> None:
        """Records what a part holds, and drops its failures."""
        table = self._read(place)
        found = (table.schema.metadata or {}).get(_SETTINGS)
        if found is None:
            raise DataError(
                f"{place}: was not written by earwitness caption; choose another --output, or "
                "--overwrite"
            )
        if found != self._settings.encode():
            raise DataError(
                f"{place}: holds results of another model or other settings; repeat the first "
                "command to continue, or choose another --output, or --overwrite"
            )
        kept = table.filter(self._arrow.compute.is_null(table["error"]))
        names = kept.select(["file", "file_bytes"]).to_pylist()
        self.done.update(name_of(row) for row in names)
        if not len(kept):
            self._files.rm_file(place)
        elif len(kept) < len(table):
            self._write(place, kept)
