"""Clips packed into a few large files, which suit cluster file systems.

webdataset: plain tars of 000000000.flac and 000000000.json; parquet: the sound file in a column
`bytes`. Sounds are copied unchanged. Every split has a folder with its own manifest.csv, which
`[source] train = "shards/train"` reads.
"""

import io
import json
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from earwitness.data.prepare.entries import FoundClip, Tracker, untracked
from earwitness.data.prepare.output import manifest_row, write_rows
from earwitness.data.prepare.packed import MARK
from earwitness.errors import ConfigError
from earwitness.io.parquet import need_parquet

Format = Literal["webdataset", "parquet"]
Row = dict[str, Any]

_BLOCK = 512


def check_folder(folder: Path, size: int) -> None:
    """Raises ConfigError if `folder` is not empty, or `size` is below one clip."""
    if size < 1:
        raise ConfigError(f"--shard-size {size}: expected 1 clip or more")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder}: is not empty; shards go into a new or empty folder")
    if not folder.absolute().parent.is_dir():
        raise ConfigError(f"{folder}: no folder {folder.absolute().parent}; create it first")


def write_shards(
    folder: Path,
    clips: Sequence[FoundClip],
    size: int = 1000,
    kind: Format = "webdataset",
    track: Tracker = untracked,
) -> dict[str, Path]:
    """Writes `clips` as shards of `size` clips, in one folder per split; returns these folders.

    Everything is first written next to `folder` and then moved there in one step, so that the
    folder is never incomplete.

    Raises:
        ConfigError: the folder is not empty or cannot be written, or a sound has disappeared.
        MissingDependencyError: parquet without pyarrow.
    """
    check_folder(folder, size)
    draft = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    splits = list(dict.fromkeys(clip.entry.split for clip in clips))
    write = _write_tar if kind == "webdataset" else _write_parquet
    tracked = iter(track(clips, len(clips), "packing"))
    try:
        for split in splits:
            part = draft / split
            part.mkdir(parents=True)
            own = [clip for clip in clips if clip.entry.split == split]
            rows: list[Row] = []
            for number, start in enumerate(range(0, len(own), size)):
                several = own[start : start + size]
                rows += write(part, number, start, several, tracked)
            write_rows(part / "manifest.csv", rows)
        if folder.is_dir():
            folder.rmdir()
        draft.rename(folder)
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot be written ({error.filename or ''} {error.strerror or error})"
        ) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return {split: folder / split for split in splits}


def _write_tar(
    folder: Path, number: int, first: int, clips: Sequence[FoundClip], tracked: Iterator[FoundClip]
) -> list[Row]:
    name = f"shard-{number:06d}.tar"
    rows = []
    with tarfile.open(folder / name, "w", format=tarfile.USTAR_FORMAT) as tar:
        for index, clip in enumerate(clips, start=first):
            # Keys are digits: webdataset ends a key at the first dot, but ids have dots and slashes
            key, ending = f"{index:09d}", clip.path.suffix.lower()
            contents = clip.path.read_bytes()
            row = manifest_row(clip, f"{name}{MARK}{key}{ending}")
            start = _add(tar, f"{key}{ending}", contents)
            fields = {k: v for k, v in row.items() if k != "audio"}
            _add(tar, f"{key}.json", json.dumps(fields, ensure_ascii=False).encode())
            rows.append(row | {"offset": start, "bytes": len(contents)})
            next(tracked)
    return rows


def _add(tar: tarfile.TarFile, name: str, contents: bytes) -> int:
    """Adds a reproducible member (no times or owners); returns where its contents start."""
    info = tarfile.TarInfo(name)
    info.size = len(contents)
    tar.addfile(info, io.BytesIO(contents))
    return tar.offset - -(-len(contents) // _BLOCK) * _BLOCK


def _write_parquet(
    folder: Path, number: int, first: int, clips: Sequence[FoundClip], tracked: Iterator[FoundClip]
) -> list[Row]:
    """One row group per clip, so that a training step reads one clip without its neighbors."""
    name = f"shard-{number:06d}.parquet"
    arrow, parquet = need_parquet(folder / name)
    text, texts = arrow.string(), arrow.list_(arrow.string())
    kinds = {"seconds": arrow.float64(), "captions": texts, "bytes": arrow.binary()}
    names = ["id", "name", "split", "source", "recording", "seconds", "captions", "bytes"]
    schema = arrow.schema([(column, kinds.get(column, text)) for column in names])
    rows = []
    with parquet.ParquetWriter(
        folder / name, schema, compression="none", use_dictionary=False, write_statistics=False
    ) as writer:
        for position, clip in enumerate(clips):
            row = manifest_row(clip, f"{name}{MARK}{position}")
            cells = {**row, "name": clip.path.name, "bytes": clip.path.read_bytes()}
            del cells["audio"]
            writer.write_table(arrow.Table.from_pylist([cells], schema=schema))
            rows.append(row)
            next(tracked)
    return rows
