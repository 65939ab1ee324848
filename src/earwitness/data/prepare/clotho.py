"""Clotho: `file_name,caption_1..caption_5`, sounds in development, validation and evaluation.

Drossos et al. 2020 (releases 1, 2, 2.1). The metadata files give each sound's Freesound number.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from earwitness.data.prepare.audiocaps import csv_files, split_of_file
from earwitness.data.prepare.entries import Entry, Reading, named
from earwitness.io.tables import Table, cell, read_table

COLUMNS = ("file_name", "caption_1", "caption_2", "caption_3", "caption_4", "caption_5")


def read(captions: Sequence[Path], split: str | None, metadata: Sequence[Path] = ()) -> Reading:
    """The clips of Clotho's caption files.

    With `metadata` (or metadata CSVs in the same folders) a clip's recording is its Freesound
    number; without it, file names identify recordings only within a split: the release itself has
    different sounds with the same name in two splits.

    Raises:
        DataError: a file is missing, has other columns, or the split is unclear.
    """
    reading = Reading("clotho")
    sounds = sound_ids(metadata or _beside(captions))
    entries: list[Entry] = []
    for path in csv_files(captions, "caption_1"):
        table = read_table(path).nonempty("one clip or caption per row")
        table.need(COLUMNS, "Clotho")
        part = split or split_of_file(path)
        entries += [_entry(table, number, part, sounds) for number in range(len(table.rows))]
        reading.rows += len(table.rows)
        reading.inputs.append(path)
        reading.notes += table.notes()
        reading.releases.append(("clotho", part))
    reading.take(entries)
    bare = sum(not entry.recording.startswith("freesound:") for entry in reading.entries)
    if bare:
        reading.notes.append(
            f"{bare} of {len(reading.entries)} clips without a Freesound number (metadata CSV): "
            "leakage can only be detected by file name"
        )
    uses = Counter(entry.id for entry in reading.entries)
    shared = [name for name, count in uses.items() if count > 1]
    if shared:
        reading.notes.append(f"{named(shared)}: file names in more than one split")
    return reading


def sound_ids(metadata: Sequence[Path]) -> dict[tuple[str, str], str]:
    """Freesound numbers by (split, file name), as far as the metadata have them."""
    found: dict[tuple[str, str], str] = {}
    for path in metadata:
        table = read_table(path).nonempty("one clip or caption per row")
        table.need(("file_name", "sound_id"), "Clotho's metadata")
        part = split_of_file(path)
        for row in table.rows:
            sound = cell(row, "sound_id").strip()
            if sound.isdigit():
                found[part, cell(row, "file_name").strip()] = sound
    return found


def _beside(captions: Sequence[Path]) -> list[Path]:
    folders = dict.fromkeys(path if path.is_dir() else path.parent for path in captions)
    return sorted({p for folder in folders for p in folder.rglob("clotho_metadata_*.csv")})


def _entry(table: Table, number: int, split: str, sounds: dict[tuple[str, str], str]) -> Entry:
    row = table.rows[number]
    name = cell(row, "file_name")
    sound = sounds.get((split, name.strip()))
    return Entry(
        name,
        f"freesound:{sound}" if sound else f"clotho:{split}/{name}",
        tuple(cell(row, column) for column in COLUMNS[1:]),
        "clotho",
        split,
        names=(name, name.strip()),
        place=table.place(number),
    )
