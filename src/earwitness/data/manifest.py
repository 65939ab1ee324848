"""Manifests: one row a clip, with its audio file and one to many captions. CSV, JSON lines,
parquet, or a folder of shards.
"""

import csv
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from earwitness.data.prepare.packed import Packed, PackedFile, need_parquet, packed_at, shard_rows
from earwitness.errors import DataError

_CAPTION_COLUMN = re.compile(r"caption(?:_(\d+))?")
_AUDIO_COLUMNS = ("audio", "file", "path", "file_name")
_CELL_LIMIT = 1 << 24


@dataclass(frozen=True, init=False)
class Clip:
    """A recording: its id, its file or its place in a shard, what people say of it.

    `seconds` is what the manifest states of its length, and no part of its identity.
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
        """What `audio.load` reads: the path, or a new file object into the shard at each access."""
        return self.place.open() if isinstance(self.place, Packed) else self.place


def read_manifest(path: Path | str) -> list[Clip]:
    """The clips of a manifest; relative audio paths start at the manifest's own folder.

    Columns: `audio` (or file, path, file_name); `id` (else the path as written); `caption`,
    `caption_1`... or, in JSON lines and parquet, a list `captions`; `seconds`. A sound in a
    shard is named `shard.tar#key.flac` or `shard.parquet#row`; a folder stands for its
    manifest.csv, or else for all clips of its shards.

    Raises:
        DataError: the file is missing, of another kind, has no audio column, or names a clip twice.
    """
    path = Path(path)
    if path.is_dir() and (path / "manifest.csv").is_file():
        path = path / "manifest.csv"
    folder = path if path.is_dir() else path.parent
    clips: dict[str, Clip] = {}
    for number, row in enumerate(_rows(path), start=1):
        if not isinstance(row, dict):
            raise DataError(f"{path}: row {number} is not an object with a column 'audio'")
        audio = next((row[name] for name in _AUDIO_COLUMNS if row.get(name)), None)
        if not audio:
            raise DataError(
                f"{path}: row {number} names no audio; expected a column "
                f"{', '.join(_AUDIO_COLUMNS)}"
            )
        key = str(row.get("id") or audio)
        if key in clips:
            raise DataError(f"{path}: row {number}: clip '{key}' stands there twice")
        place = packed_at(folder, str(audio), row) or folder / str(audio)
        clips[key] = Clip(key, place, _captions(row), _seconds(row))
    if not clips:
        raise DataError(f"{path}: no rows; expected one clip a row")
    return list(clips.values())


def write_manifest(path: Path | str, clips: Iterable[Clip]) -> None:
    """Writes JSON lines with `id`, `audio` and `captions`; paths below the manifest's folder become
    relative.
    """
    path = Path(path)
    with path.open("w", encoding="utf-8") as file:
        for clip in clips:
            place = clip.place
            row: dict[str, Any] = {"id": clip.id}
            if isinstance(place, Packed):
                row["audio"] = f"{_relative(place.shard, path.parent)}#{place.member}"
                if place.size is not None:
                    row |= {"offset": place.start, "bytes": place.size}
            else:
                row["audio"] = _relative(place, path.parent)
            row["captions"] = list(clip.captions)
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _relative(audio: Path, folder: Path) -> str:
    """`audio` as a manifest in `folder` writes it: relative where it lies below the folder."""
    if audio.is_absolute() and audio.is_relative_to(folder.resolve()):
        audio = audio.relative_to(folder.resolve())
    return str(audio)


def _seconds(row: dict[str, Any]) -> float | None:
    """The column `seconds` where it holds a length."""
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
            (int(match[1] or 0), name)
            for name in row
            if isinstance(name, str) and (match := _CAPTION_COLUMN.fullmatch(name))
        )
        texts = [row[name] for _, name in numbered]
    return tuple(" ".join(str(text).split()) for text in texts if text and str(text).strip())


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        if path.is_dir():
            return shard_rows(path)
        if path.suffix == ".csv":
            csv.field_size_limit(_CELL_LIMIT)
            with path.open(newline="", encoding="utf-8-sig") as file:
                return list(csv.DictReader(file))
        if path.suffix in (".jsonl", ".ndjson"):
            lines = path.read_text(encoding="utf-8").split("\n")
            return [json.loads(line) for line in lines if line.strip()]
        if path.suffix == ".parquet":
            _, parquet = need_parquet(path)
            return parquet.read_table(path).to_pylist()
    except FileNotFoundError:
        raise DataError(f"{path}: no such manifest") from None
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise DataError(f"{path}: not a readable manifest ({error})") from None
    raise DataError(f"{path}: a manifest is .csv, .jsonl or .parquet")
