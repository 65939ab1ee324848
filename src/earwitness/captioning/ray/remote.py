"""Sounds on any fsspec or pyarrow file system: whole files, and members of remote shards."""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from earwitness.errors import DataError, MissingDependencyError, one_line
from earwitness.io.parquet import need_parquet

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem
    from pyarrow.fs import FileSystem as ArrowFileSystem


def filesystem_of(
    url: str, given: "AbstractFileSystem | ArrowFileSystem | None" = None
) -> tuple["AbstractFileSystem", str]:
    """The file system of `url` (or `given`), and the path on it.

    Raises:
        DataError: the URL's protocol is unknown.
        MissingDependencyError: the protocol needs a package that is not installed.
    """
    from fsspec.core import url_to_fs

    if given is not None:
        return as_fsspec(given), url.partition("://")[2] or url
    protocol = url.partition("://")[0]
    try:
        return url_to_fs(url)
    except ValueError:
        from fsspec.registry import known_implementations

        raise DataError(
            f"{url}: unknown file system {protocol!r}; expected one that fsspec supports, such "
            f"as {', '.join(sorted(known_implementations)[:8])}"
        ) from None
    except ImportError as error:
        raise MissingDependencyError(f"{url}: {one_line(error)}") from None


def as_fsspec(given: "AbstractFileSystem | ArrowFileSystem") -> "AbstractFileSystem":
    """A pyarrow file system as an fsspec file system."""
    from fsspec import AbstractFileSystem
    from fsspec.implementations.arrow import ArrowFSWrapper

    return given if isinstance(given, AbstractFileSystem) else ArrowFSWrapper(given)


@dataclass
class RemoteFile:
    """A sound on a file system as a binary file object that is opened on the first read.

    `start` and `size` are a byte range of a tar; for a parquet file `start` is a row of column
    `bytes`.
    """

    files: "AbstractFileSystem"
    path: str
    start: int | None = None
    size: int | None = None
    _file: Any = field(default=None, repr=False)
    _left: int | None = field(default=None, repr=False)

    def open(self, mode: Literal["rb"] = "rb") -> "RemoteFile":
        """The same sound from its start."""
        return RemoteFile(self.files, self.path, self.start, self.size)

    def __enter__(self) -> "RemoteFile":
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()

    def read(self, size: int = -1, /) -> bytes:
        """The next `size` bytes, or all the rest. Raises OSError."""
        if self._file is None:
            self._file = self._opened()
            self._left = self.size
        if self._left is not None:
            size = self._left if size < 0 else min(size, self._left)
        part = self._file.read() if size < 0 else self._file.read(size)
        if self._left is not None:
            if size and not part:
                raise OSError(f"the shard ends {self._left} bytes early")
            self._left -= len(part)
        if not part:
            self._file.close()
        return part

    def _opened(self) -> Any:
        if self.path.endswith(".parquet") and self.start is not None:
            from io import BytesIO

            return BytesIO(_row(self.files, self.path, self.start))
        file = self.files.open(self.path, "rb")
        if self.start:
            file.seek(self.start)
        return file


def tar_members(files: "AbstractFileSystem", path: str) -> Iterator[tuple[str, int, int]]:
    """(name, start, size) of every file in a remote tar. Raises DataError."""
    try:
        opened: Any = files.open(path, "rb")
        with opened as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            yield from ((m.name, m.offset_data, m.size) for m in tar if m.isfile())
    except (OSError, tarfile.TarError) as error:
        raise DataError(f"{path}: not a readable, uncompressed tar ({one_line(error)})") from None


def row_count(files: "AbstractFileSystem", path: str) -> int:
    """The rows of a remote parquet file with a column `bytes`. Raises DataError."""
    arrow, parquet = need_parquet(path)
    try:
        with files.open(path, "rb") as stream:
            file = parquet.ParquetFile(stream)
            if "bytes" not in file.schema_arrow.names:
                raise DataError(
                    f"{path}: no column 'bytes'; expected shards with the bytes of sound files"
                )
            return file.metadata.num_rows
    except (OSError, arrow.ArrowException) as error:
        raise DataError(f"{path}: not a readable parquet file ({one_line(error)})") from None


def _row(files: "AbstractFileSystem", path: str, row: int) -> bytes:
    for group, (first, last) in enumerate(_groups(files, path)):
        if first <= row < last:
            return _group(files, path, group)[row - first]
    raise OSError(f"no row {row}")


@lru_cache(maxsize=64)
def _groups(files: "AbstractFileSystem", path: str) -> list[tuple[int, int]]:
    """The first row of each row group, and the row after its last."""
    _, parquet = need_parquet(path)
    with files.open(path, "rb") as stream:
        metadata = parquet.ParquetFile(stream).metadata
    found, first = [], 0
    for group in range(metadata.num_row_groups):
        found.append((first, first + metadata.row_group(group).num_rows))
        first = found[-1][1]
    return found


@lru_cache(maxsize=2)
def _group(files: "AbstractFileSystem", path: str, group: int) -> list[bytes]:
    """The sounds of one row group, so that neighbors in a job are read together."""
    _, parquet = need_parquet(path)
    with files.open(path, "rb") as stream:
        table = parquet.ParquetFile(stream).read_row_group(group, columns=["bytes"])
    return table.column("bytes").to_pylist()
