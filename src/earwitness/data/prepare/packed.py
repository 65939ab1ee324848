"""Sounds inside shards: read from a tar at their offset, or from a row of a parquet file.

Shards of either kind may come from other tools: tars in the webdataset layout (key.flac, key.json
or key.txt), parquet with a column `bytes`.
"""

import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from earwitness.errors import DataError, one_line
from earwitness.io.parquet import need_parquet
from earwitness.io.suffixes import SOUND_SUFFIXES

MARK = "#"
"""separates a shard from what is read from it: shard.tar#key.flac, shard.parquet#12"""


@dataclass(frozen=True)
class Packed:
    """Where a sound is in a shard: `start` and `size` in bytes of a tar, or `start` is a row."""

    shard: Path
    member: str
    start: int
    size: int | None = None

    @property
    def name(self) -> str:
        """The shard and the member, as written in manifests."""
        return f"{self.shard}{MARK}{self.member}"

    def read(self) -> bytes:
        """The bytes of the sound's file.

        Raises:
            OSError: the shard is missing or ends early.
            ValueError: a parquet shard is damaged or has no such row.
        """
        if self.shard.suffix == ".parquet":
            return _parquet_bytes(self.shard, self.start)
        with self.shard.open("rb") as file:
            file.seek(self.start)
            found = file.read(self.size)
        if self.size is not None and len(found) < self.size:
            raise OSError(f"the shard ends {self.size - len(found)} bytes early")
        return found

    def open(self) -> "PackedFile":
        """The sound as a binary file object; nothing is read until its `read` is called."""
        return PackedFile(self)


class PackedFile:
    """A sound in a shard as a binary file object that reads once and keeps no file open.

    For code that expects paths it also has `stat`, `resolve` and `open`.
    """

    def __init__(self, packed: Packed) -> None:
        self.packed, self.name = packed, packed.name
        self._rest: memoryview | None = None

    def __str__(self) -> str:
        return self.name

    def __enter__(self) -> "PackedFile":
        return self

    def __exit__(self, *error: object) -> None:
        self._rest = memoryview(b"")

    def read(self, size: int = -1, /) -> bytes:
        """The next `size` bytes, or all the rest. Raises OSError and ValueError."""
        if self._rest is None:
            self._rest = memoryview(self.packed.read())
        count = len(self._rest) if size < 0 else size
        part = bytes(self._rest[:count])
        # An empty slice would keep the whole sound in memory.
        self._rest = self._rest[count:] if count < len(self._rest) else memoryview(b"")
        return part

    def open(self, mode: Literal["rb"] = "rb") -> "PackedFile":
        """The same sound from its start."""
        return PackedFile(self.packed)

    def resolve(self) -> "PackedFile":
        """The same sound, with the absolute path of its shard."""
        return PackedFile(replace(self.packed, shard=self.packed.shard.resolve()))

    def stat(self) -> os.stat_result:
        """The stat result of the shard, which changes with any of its sounds. Raises OSError."""
        return self.packed.shard.stat()


def packed_at(folder: Path, name: str, row: dict[str, Any]) -> Packed | None:
    """The place named by `name` ("shard.tar#key.flac"); None if it names an ordinary file.

    A manifest's columns `offset` and `bytes` give the position; else the tar's own headers do.

    Raises:
        DataError: the shard is missing or has no such member.
    """
    shard, mark, member = name.rpartition(MARK)
    if not mark or not shard.endswith((".tar", ".parquet")):
        return None
    path = folder / shard
    if shard.endswith(".parquet"):
        if not member.isdecimal():
            raise DataError(f"{path}{MARK}{member}: expected a row number, got '{member}'")
        return Packed(path, member, int(member))
    start, size = str(row.get("offset") or ""), str(row.get("bytes") or "")
    if start.isdecimal() and size.isdecimal():
        return Packed(path, member, int(start), int(size))
    places = _members(path)
    if member not in places:
        raise DataError(f"{path}: holds no '{member}'")
    return Packed(path, member, *places[member])


def packed_in(shard: Path) -> list[Packed]:
    """Every file of a tar, every row of a parquet file with a column `bytes`.

    Raises:
        DataError: the shard is missing, damaged or of another kind.
    """
    if shard.suffix == ".parquet":
        rows = [row["audio"].rpartition(MARK)[2] for row in _parquet_rows(shard)]
        return [Packed(shard, row, int(row)) for row in rows]
    return [Packed(shard, name, *place) for name, place in _members(shard).items()]


def shard_rows(folder: Path) -> list[dict[str, Any]]:
    """The manifest rows of all shards in `folder`, built from the shards themselves.

    Raises:
        DataError: the folder holds no shard, or one is damaged.
    """
    tars, tables = sorted(folder.glob("*.tar")), sorted(folder.glob("*.parquet"))
    if not tars and not tables:
        raise DataError(f"{folder}: holds no manifest.csv and no shards (.tar, .parquet)")
    rows = [row for path in tars for row in _tar_rows(path)]
    return rows + [row for path in tables for row in _parquet_rows(path)]


def _tar_rows(path: Path) -> Iterator[dict[str, Any]]:
    """One row per sound in a tar; members with the same key belong together, as in webdataset."""
    groups: dict[str, dict[str, str]] = {}
    places = _members(path)
    for name in places:
        folder, _, last = name.rpartition("/")
        key, _, ending = last.partition(".")
        groups.setdefault(f"{folder}/{key}" if folder else key, {})[f".{ending.lower()}"] = name
    with path.open("rb") as file:
        for key, members in groups.items():
            sound = next((members[e] for e in members if e in SOUND_SUFFIXES), None)
            if sound is None:
                continue
            fields: dict[str, Any] = {}
            for ending in (".txt", ".json"):
                if ending in members:
                    start, size = places[members[ending]]
                    file.seek(start)
                    fields |= _sidecar(path, members[ending], file.read(size))
            row = {"id": fields.get("id") or fields.get("__key__") or key, **fields}
            row |= {"audio": f"{path.name}{MARK}{sound}"}
            yield row | dict(zip(("offset", "bytes"), places[sound], strict=True))


def _sidecar(path: Path, member: str, contents: bytes) -> dict[str, Any]:
    try:
        text = contents.decode("utf-8")
        if member.endswith(".txt"):
            return {"captions": text.splitlines()}
        fields = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path}{MARK}{member}: not readable ({error})") from None
    if not isinstance(fields, dict):
        raise DataError(f"{path}{MARK}{member}: expected an object")
    if isinstance(fields.get("caption"), list) or "text" in fields:
        fields = {"captions": fields.get("caption") or fields["text"], **fields}
    if isinstance(fields.get("captions"), str):
        fields["captions"] = [fields["captions"]]
    return fields


@lru_cache(maxsize=256)
def _members(path: Path) -> dict[str, tuple[int, int]]:
    """Start and size of every file in a tar. Raises DataError."""
    try:
        with tarfile.open(path, "r:") as tar:
            return {m.name: (m.offset_data, m.size) for m in tar if m.isfile()}
    except FileNotFoundError:
        raise DataError(f"{path}: no such shard") from None
    except (OSError, tarfile.TarError) as error:
        raise DataError(f"{path}: not a readable, uncompressed tar ({error})") from None


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    arrow, parquet = need_parquet(path)
    try:
        file = parquet.ParquetFile(path)
        names = [n for n in file.schema_arrow.names if n != "bytes"]
        if len(names) == len(file.schema_arrow.names):
            raise DataError(f"{path}: no column 'bytes'; expected the bytes of sound files")
        rows = file.read(columns=names).to_pylist()
    except (OSError, arrow.ArrowException) as error:
        raise DataError(f"{path}: not a readable parquet file ({error})") from None
    for number, row in enumerate(rows):
        place = f"{path.name}{MARK}{number}"
        yield {"id": place, **row, "audio": place}


def _parquet_bytes(path: Path, row: int) -> bytes:
    """The column `bytes` of one row; only the row's group is read."""
    arrow, parquet = need_parquet(path)
    info = path.stat()
    starts, metadata = _row_groups(path, info.st_size, info.st_mtime_ns)
    group = next((g for g in range(len(starts) - 1) if starts[g] <= row < starts[g + 1]), None)
    if group is None:
        raise ValueError(f"no row {row}; the shard has {starts[-1]} rows")
    try:
        file = parquet.ParquetFile(path, metadata=metadata)
        column = file.read_row_group(group, columns=["bytes"]).column("bytes")
    except arrow.ArrowException as error:
        raise ValueError(one_line(error)) from None
    return column[row - starts[group]].as_py()


@lru_cache(maxsize=64)
def _row_groups(path: Path, size: int, changed: int) -> tuple[list[int], Any]:
    """The first row of each row group and the number of rows; and the footer. Cached by size and
    time.
    """
    _, parquet = need_parquet(path)
    metadata = parquet.read_metadata(os.fspath(path))
    starts = [0]
    for group in range(metadata.num_row_groups):
        starts.append(starts[-1] + metadata.row_group(group).num_rows)
    return starts, metadata
