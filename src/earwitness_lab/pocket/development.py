"""The development recordings, `dev` and `dev2`: candidates are chosen on them, none is trained."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from earwitness.errors import DataError
from earwitness.text import normalize

SETS = {"dev": ("dev",), "dev2": ("dev2",), "both": ("dev", "dev2")}
"""name of a set -> the folders it is made of"""


class Recordings(NamedTuple):
    """Sound files and the normalized human captions of each, one to five."""

    files: list[Path]
    references: list[list[str]]


def read_recordings(folder: Path) -> Recordings:
    """The recordings of a folder with `captions.csv` (`file`, `caption_1` to `caption_5`, of which
    some may be empty) and `clips/`.

    Raises:
        DataError: there is no such file, or a recording in it has no caption.
    """
    path = folder / "captions.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; expected captions of recordings") from None
    files = [folder / "clips" / row["file"] for row in rows]
    columns = [f"caption_{number}" for number in range(1, 6)]
    references = [
        [normalize(row[c]) for c in columns if (row.get(c) or "").strip()] for row in rows
    ]
    for file, texts in zip(files, references, strict=True):
        if not texts:
            raise DataError(f"{path}: '{file.name}' has no caption; expected one to five")
    return Recordings(files, references)


def read_development(data: Path, name: str = "both") -> Recordings:
    """The recordings of one of `SETS` in the data folder; those of `both` in the order of its
    folders.

    Raises:
        DataError: see `read_recordings`.
    """
    return joined([read_recordings(data / folder) for folder in SETS[name]])


def joined(parts: Sequence[Recordings]) -> Recordings:
    """The recordings of all `parts`, in order."""
    return Recordings(
        [file for part in parts for file in part.files],
        [texts for part in parts for texts in part.references],
    )
