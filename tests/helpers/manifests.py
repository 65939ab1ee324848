"""Writes manifests of clips for tests."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from earwitness.data.manifest import Clip
from earwitness.data.prepare.packed import Packed


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
