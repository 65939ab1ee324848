"""Caption files as (recording, caption) pairs; benchmark recordings are kept out of training."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from earwitness.io.tables import cell, read_table


@dataclass(frozen=True)
class Captioned:
    """One human caption and the id of the recording that it describes."""

    clip_id: str
    caption: str


def read_audiocaps(path: Path | str) -> list[Captioned]:
    """The captions of an AudioCaps CSV (`youtube_id`, `caption`; cells may hold newlines), in
    order.

    Raises:
        DataError: the file is missing or has no such columns.
    """
    rows = _rows(Path(path), ("youtube_id", "caption"))
    return [Captioned(row["youtube_id"], " ".join(row["caption"].split())) for row in rows]


def read_clotho(path: Path | str) -> list[Captioned]:
    """The captions of a Clotho CSV (`file_name`, `caption_1` to `caption_5`), five per row.

    Raises:
        DataError: the file is missing or has no such columns.
    """
    columns = tuple(f"caption_{number}" for number in range(1, 6))
    return [
        Captioned(row["file_name"], " ".join(row[column].split()))
        for row in _rows(Path(path), ("file_name", *columns))
        for column in columns
    ]


def clip_ids(path: Path | str) -> frozenset[str]:
    """The `clip_id` column of a benchmark's captions.csv. Raises DataError."""
    return frozenset(row["clip_id"] for row in _rows(Path(path), ("clip_id",)))


def development_ids(data: Path | str) -> frozenset[str]:
    """The clips of both development sets in the folder `data`, `dev` and `dev2`, whose captions
    must not be trained on. AudioCaps clips are named by YouTube id, Clotho's by file name.

    Raises:
        DataError: `dev`/captions.csv is missing or has no such column; `dev2` may be missing.
    """
    second = Path(data) / "dev2" / "captions.csv"
    ids = clip_ids(Path(data) / "dev" / "captions.csv")
    return ids | clip_ids(second) if second.exists() else ids


def without(captions: Iterable[Captioned], excluded: Iterable[str]) -> list[Captioned]:
    """`captions` without those of recordings in `excluded`: what may be trained on."""
    excluded = frozenset(excluded)
    return [captioned for captioned in captions if captioned.clip_id not in excluded]


def _rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    table = read_table(path, "caption file", (".csv", ".tsv")).need(columns, "a caption file")
    return [{name: cell(row, name) for name in columns} for row in table.rows]
