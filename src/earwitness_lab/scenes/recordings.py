"""Which recording a labeled sound was cut from, and which recordings are held out.

Excerpts of one recording sound alike: a split that is to measure anything keeps them on one side.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path

from earwitness.config import tomllib
from earwitness.errors import DataError
from earwitness.io.tables import cell, read_table

Row = dict[str, str]

_MIN_SPLIT_RECORDINGS = 4


def read_manifest(folder: Path) -> list[Row]:
    """The rows of `folder`/manifest.csv. Raises DataError if it is missing or lacks a column."""
    path = folder / "manifest.csv"
    table = read_table(path, "manifest").nonempty("one sound per row, with the columns path,label")
    rows = [{name: cell(row, name) for name in table.columns} for row in table.rows]
    for line, row in zip(table.lines, rows, strict=True):
        for column in ("path", "label"):
            if not row.get(column):
                raise DataError(
                    f"{path}: row {line} has no '{column}'; every sound needs a path and a label"
                )
    return rows


def recording_of(row: Row) -> str:
    """The name of the recording that the sound of `row` was cut from.

    Its `recording` column, else what the rules of recordings.toml read from `origin`, else its
    path. Doubt falls on the side of one recording: numbered files of one name count as one.
    """
    if row.get("recording"):
        return row["recording"]
    source, _, name = (row.get("origin") or row["path"]).rpartition("@")
    if source:
        name = name.partition(":")[2] or name
    for pattern, recording in _recording_rules():
        match = pattern.search(name)
        if match:
            text = recording.format(**match.groupdict())
            return (
                text if text.startswith("freesound:") else f"{row.get('source') or source}:{text}"
            )
    return row["path"]


def heldout_recordings(rows: Sequence[Row], share: float) -> frozenset[str]:
    """The recordings kept apart: about `share` of the clips of every label with enough recordings.

    Recordings are taken in the order of their hash, so adding sounds moves few of them. A label
    with fewer than four recordings keeps all of them for training. A recording with several labels
    counts for its most frequent one.

    Raises:
        DataError: `share` is outside 0 to 0.5.

    """
    if not 0 <= share <= 0.5:
        raise DataError(f"heldout_share {share}: expected a number from 0 to 0.5")
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for row in rows:
        counts[recording_of(row)][row["label"]] += 1
    by_label: dict[str, dict[str, int]] = defaultdict(dict)
    for recording, labels in counts.items():
        main = max(sorted(labels), key=lambda label: labels[label])
        by_label[main][recording] = sum(labels.values())
    heldout: set[str] = set()
    for sizes in by_label.values():
        if len(sizes) >= _MIN_SPLIT_RECORDINGS and share > 0:
            heldout |= _fill(sizes, max(1, round(share * sum(sizes.values()))))
    return frozenset(heldout)


def _fill(sizes: dict[str, int], budget: int) -> set[str]:
    chosen: set[str] = set()
    for recording in sorted(sizes, key=lambda name: hashlib.sha256(name.encode()).digest()):
        if sizes[recording] <= budget:
            chosen.add(recording)
            budget -= sizes[recording]
    return chosen


@cache
def _recording_rules() -> tuple[tuple[re.Pattern[str], str], ...]:
    text = resources.files("earwitness_lab.scenes").joinpath("recordings.toml").read_text("utf-8")
    return tuple(
        (re.compile(rule["name"]), rule["recording"]) for rule in tomllib.loads(text)["rule"]
    )
