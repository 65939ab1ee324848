"""Sources as rows of a table that say where each sound is; workers open it themselves.

Only names travel through the cluster; every worker must be able to reach the files, through a
shared folder or an fsspec file system.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earwitness.captioning.ray.remote import RemoteFile, filesystem_of
from earwitness.captioning.sources import COLUMNS, Source
from earwitness.data.prepare.packed import Packed, PackedFile
from earwitness.errors import ConfigError, DataError
from earwitness.io.parquet import need_parquet
from earwitness.io.suffixes import SOUND_SUFFIXES

if TYPE_CHECKING:
    import pyarrow
    from fsspec import AbstractFileSystem

FIELDS = ("name", "place", "start", "size", "problem")
"""columns of a listing by `table_of`"""

_KEYS = ("__key__", "id", "key")


def table_of(sources: Sequence[Source], own_files: bool = False) -> "pyarrow.Table":
    """One row per source; `own_files` omits the protocol of remote places.

    Raises:
        ConfigError: a sound comes from standard input.
    """
    pa, _ = need_parquet("a list of sounds for Ray")
    columns = [pa.field("name", pa.binary()), pa.field("place", pa.binary())]
    columns += [pa.field("start", pa.int64()), pa.field("size", pa.int64())]
    fields = pa.schema([*columns, pa.field("problem", pa.string())])
    return pa.Table.from_pylist([_row(one, own_files) for one in sources], schema=fields)


def source_of(row: Mapping[str, Any], files: "AbstractFileSystem | None" = None) -> Source:
    """The sound of a row. `files`: the file system of all places; None: that of each URL."""
    name, place = os.fsdecode(row["name"]), os.fsdecode(row["place"])
    if row["problem"] is not None:
        return Source(name, b"", row["problem"])
    start, size = row["start"], row["size"]
    if files is not None:
        return Source(name, RemoteFile(files, place, start, size))
    if "://" in place:
        return Source(name, RemoteFile(*filesystem_of(place), start, size))
    if start is None:
        return Source(name, place)
    return Source(name, Packed(Path(place), name.rpartition("#")[2], start, size).open())


def sources_in(
    table: "pyarrow.Table", files: "AbstractFileSystem | None" = None
) -> tuple[list[Source], list[str]]:
    """The sounds in a block of a dataset, and the columns to keep next to their captions.

    Accepts a listing by `table_of`; files in a column `bytes`, in `audio` (bytes, or bytes and
    path, as in Hugging Face datasets) or in one named like their extension (`flac`, as Ray reads
    webdataset); or paths and URLs in a column of `sources.COLUMNS`. Raises DataError otherwise.
    """
    names = table.column_names
    if set(FIELDS) <= set(names):
        return [source_of(row, files) for row in table.to_pylist()], []
    paths = next((n for n in COLUMNS if n in names and _is_text(table, n)), None)
    endings = [n for n in names if f".{n.lower()}" in SOUND_SUFFIXES]
    sounds = next((n for n in ("bytes", "audio", *endings) if n in names and n != paths), None)
    if sounds is None and paths is None:
        raise DataError(
            f"the dataset has the columns {', '.join(names)}; expected one with the files (bytes, "
            f"audio, flac, ...) or with their paths ({', '.join(COLUMNS)})"
        )
    kept = [name for name in names if name != sounds]
    named = paths or next((n for n in _KEYS if n in names), None)
    columns = [name for name in (sounds, named) if name is not None]
    rows = table.select(columns).to_pylist()
    return [_given(n, row, sounds, named, files) for n, row in enumerate(rows)], kept


def _is_text(table: "pyarrow.Table", column: str) -> bool:
    return str(table.schema.field(column).type) in ("string", "large_string", "string_view")


def _given(
    number: int,
    row: Mapping[str, Any],
    sounds: str | None,
    named: str | None,
    files: "AbstractFileSystem | None",
) -> Source:
    """The sound of a row of a user's dataset."""
    content = row[sounds] if sounds else None
    inside = content if isinstance(content, Mapping) else {"bytes": content}
    name = str((row[named] if named else None) or inside.get("path") or f"row {number}")
    given = inside.get("bytes") if sounds else None
    if isinstance(given, bytes):
        return Source(name, given)
    place = name if sounds is None else inside.get("path")
    if not isinstance(place, str):
        return Source(name, b"", f"{name}: the row holds no file; expected bytes in {sounds!r}")
    if files is None and "://" not in place:
        return Source(name, place)
    return Source(name, RemoteFile(*filesystem_of(place, files)))


def _row(source: Source, own_files: bool) -> dict[str, Any]:
    sound, row = source.audio, {"name": os.fsencode(source.name), "problem": source.problem}
    if source.problem is not None:
        return row | {"place": b""}
    if isinstance(sound, PackedFile):
        packed = sound.packed
        place = os.fsencode(os.path.abspath(packed.shard))
        return row | {"place": place, "start": packed.start, "size": packed.size}
    if isinstance(sound, RemoteFile):
        place = sound.path if own_files else sound.files.unstrip_protocol(sound.path)
        return row | {"place": place.encode(), "start": sound.start, "size": sound.size}
    if isinstance(sound, str | os.PathLike):
        return row | {"place": os.fsencode(os.path.abspath(sound))}
    raise ConfigError(f"{source.name}: workers cannot read standard input; expected a file")
