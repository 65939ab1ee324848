"""Every real recording that may be trained on, with what is known of it."""

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path

from earwitness.errors import DataError
from earwitness_lab.scenes.recordings import heldout_recordings, read_manifest, recording_of

EXCLUDED_KINDS = ("NC-ND",)
"""license families that weights which ship are not trained on"""
HELDOUT_SHARE = 0.12
BENCHMARK_SOURCES = ("snap_scratch",)
"""sources whose sounds are in the ears benchmark: never trained on"""


@dataclass(frozen=True)
class RealSound:
    """A recording: its file, its class where known, and whether it is held out of training.

    `recording` names what the file was cut from; excerpts of one recording stay on one side.
    """

    path: Path
    source: str
    label: str
    description: str
    recording: str
    heldout: bool


def real_sounds(data: Path | str) -> list[RealSound]:
    """The recordings of `train_audio` and then of `more_audio` in the folder `data`.

    Those of `train_audio` are held out as the scenes hold them out; of the others about 12 % are,
    by the hash of the recording's name, so that adding sounds moves none of them.

    Raises:
        DataError: a manifest is missing or lacks a column.
    """
    return [*_labeled(Path(data) / "train_audio"), *_others(Path(data) / "more_audio")]


def _labeled(folder: Path) -> list[RealSound]:
    rows = read_manifest(folder)
    heldout = heldout_recordings(rows, HELDOUT_SHARE)
    return [
        _sound(folder, row, recording_of(row), recording_of(row) in heldout)
        for row in rows
        if row.get("kind") not in EXCLUDED_KINDS
    ]


def _others(folder: Path) -> list[RealSound]:
    path = folder / "manifest.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; expected a CSV with a column path") from None
    kept = [row for row in rows if row.get("kind") not in EXCLUDED_KINDS]
    return [_sound(folder, row, recording_of(row), is_heldout(recording_of(row))) for row in kept]


def is_heldout(recording: str, share: float = HELDOUT_SHARE) -> bool:
    """True for about `share` of all names, the same ones in every run."""
    number = int.from_bytes(hashlib.sha256(recording.encode()).digest()[:4], "big")
    return number < share * 2**32


def _sound(folder: Path, row: dict[str, str], recording: str, heldout: bool) -> RealSound:
    return RealSound(
        folder / row["path"],
        row.get("source") or "",
        row.get("label") or "",
        (row.get("description") or "").lower(),
        recording,
        heldout or row.get("source") in BENCHMARK_SOURCES,
    )
