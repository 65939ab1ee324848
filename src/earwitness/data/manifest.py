"""Manifests: one row a clip, with its audio file and one to many captions. CSV, JSON lines or
parquet.
"""

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earwitness.errors import DataError

_CAPTION_COLUMNS = ("caption", *(f"caption_{number}" for number in range(1, 11)))
_AUDIO_COLUMNS = ("audio", "file", "path", "file_name")


@dataclass(frozen=True)
class Clip:
    """A recording: its id, its file, what people say of it."""

    id: str
    audio: Path
    captions: tuple[str, ...] = ()


def read_manifest(path: Path | str) -> list[Clip]:
    """The clips of a manifest; relative audio paths start at the manifest's own folder.

    Columns: `audio` (or file, path, file_name); `id` (else the path as written); `caption`,
    `caption_1`... or, in JSON lines and parquet, a list `captions`.

    Raises:
        DataError: the file is missing, of another kind, has no audio column, or names a clip twice.
    """
    path = Path(path)
    clips: dict[str, Clip] = {}
    for number, row in enumerate(_rows(path), start=1):
        audio = next((row[name] for name in _AUDIO_COLUMNS if row.get(name)), None)
        if not audio:
            raise DataError(
                f"{path}: row {number} names no audio; expected a column "
                f"{', '.join(_AUDIO_COLUMNS)}"
            )
        key = str(row.get("id") or audio)
        if key in clips:
            raise DataError(f"{path}: row {number}: clip '{key}' stands there twice")
        clips[key] = Clip(key, path.parent / str(audio), _captions(row))
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
            audio = clip.audio
            if audio.is_absolute() and audio.is_relative_to(path.parent.resolve()):
                audio = audio.relative_to(path.parent.resolve())
            row = {"id": clip.id, "audio": str(audio), "captions": list(clip.captions)}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _captions(row: dict[str, Any]) -> tuple[str, ...]:
    several = row.get("captions")
    texts = list(several) if several is not None else [row.get(name) for name in _CAPTION_COLUMNS]
    return tuple(" ".join(str(text).split()) for text in texts if text and str(text).strip())


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        if path.suffix == ".csv":
            with path.open(newline="", encoding="utf-8-sig") as file:
                return list(csv.DictReader(file))
        if path.suffix in (".jsonl", ".ndjson"):
            lines = path.read_text(encoding="utf-8").splitlines()
            return [json.loads(line) for line in lines if line.strip()]
        if path.suffix == ".parquet":
            from pyarrow import parquet

            return parquet.read_table(path).to_pylist()
    except FileNotFoundError:
        raise DataError(f"{path}: no such manifest") from None
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise DataError(f"{path}: not a readable manifest ({error})") from None
    raise DataError(f"{path}: a manifest is .csv, .jsonl or .parquet")
