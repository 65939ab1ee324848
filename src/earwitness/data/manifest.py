"""Manifests: one row per clip, with its audio file and one or more captions.

A manifest is any table that `io.tables` reads, or a folder of shards.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from earwitness.data.prepare.packed import Packed, PackedFile, packed_at, shard_rows
from earwitness.errors import DataError, one_line
from earwitness.io.names import key_of, on_disk
from earwitness.io.tables import read_table
from earwitness.io.text_files import url_in

_CAPTION_COLUMN = re.compile(r"caption(?:_(\d+))?")
_AUDIO_COLUMNS = ("audio", "file", "path", "file_name")


@dataclass(frozen=True, init=False)
class Clip:
    """A recording: its id, its file or its place in a shard, and its captions.

    `seconds` is the length stated in the manifest; it is ignored when clips are compared.
    """

    id: str
    place: Path | Packed
    captions: tuple[str, ...]
    seconds: float | None = field(compare=False)

    def __init__(
        self,
        id: str,
        audio: Path | Packed,
        captions: tuple[str, ...] = (),
        seconds: float | None = None,
    ) -> None:
        object.__setattr__(self, "id", id)
        object.__setattr__(self, "place", audio)
        object.__setattr__(self, "captions", captions)
        object.__setattr__(self, "seconds", seconds)

    @property
    def audio(self) -> Path | PackedFile:
        """What `audio.load` reads: the path, or a new file object into the shard on each access."""
        return self.place.open() if isinstance(self.place, Packed) else self.place


def read_manifest(path: Path | str) -> list[Clip]:
    """The clips of a manifest; audio paths are relative to the manifest's own folder.

    Columns: `audio` (or file, path, file_name); `id` (else the path as written); `caption`,
    `caption_1`... or, in JSON and parquet, a list `captions`; `seconds`. A sound in a shard is
    named `shard.tar#key.flac` or `shard.parquet#row`; a folder means its manifest.csv, or else all
    clips in its shards. Ids are normalized to composed Unicode (NFC).

    Raises:
        DataError: the file is missing, of another kind, has no audio column, lists a clip twice,
            or names a URL.
    """
    path = Path(path)
    if path.is_dir() and (path / "manifest.csv").is_file():
        path = path / "manifest.csv"
    folder = path if path.is_dir() else path.parent
    clips: dict[str, Clip] = {}
    for number, row in enumerate(_rows(path), start=1):
        audio = next((row[name] for name in _AUDIO_COLUMNS if row.get(name)), None)
        if not audio:
            raise DataError(
                f"{path}: row {number} names no audio file; expected one in a column "
                f"{', '.join(_AUDIO_COLUMNS)}"
            )
        if (url := url_in(str(audio))) is not None:
            raise DataError(f"{path}: row {number}: {url} is a URL; expected a file")
        key = key_of(str(row.get("id") or audio))
        if key in clips:
            raise DataError(f"{path}: row {number}: clip '{key}' is listed twice")
        place = packed_at(folder, str(audio), row) or on_disk(folder / str(audio))
        clips[key] = Clip(key, place, _captions(row), _seconds(row))
    if not clips:
        raise DataError(f"{path}: no rows; expected one clip per row")
    return list(clips.values())


def _seconds(row: dict[str, Any]) -> float | None:
    """The column `seconds`, if it holds a length."""
    try:
        seconds = float(row.get("seconds") or 0)
    except (TypeError, ValueError):
        return None
    return seconds if 0 < seconds < float("inf") else None


def _captions(row: dict[str, Any]) -> tuple[str, ...]:
    several = row.get("captions")
    if several is not None and not isinstance(several, str):
        texts = list(several)
    else:
        numbered = sorted(
            (int(match[1] or 0), name) for name in row if (match := _CAPTION_COLUMN.fullmatch(name))
        )
        texts = [row[name] for _, name in numbered]
    return tuple(one_line(text) for text in texts if text and str(text).strip())


def _rows(path: Path) -> list[dict[str, Any]]:
    if path.is_dir():
        return shard_rows(path)
    return read_table(path, "manifest").rows
