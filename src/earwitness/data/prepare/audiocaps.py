"""AudioCaps: `audiocap_id,youtube_id,start_time,caption`, clips under any of several names.

Kim et al. 2019 (releases 1.0 and 2.0). Training clips have one caption, others five rows each.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from earwitness.data.prepare.audio_files import AudioFiles
from earwitness.data.prepare.entries import Entry, Reading, split_name
from earwitness.errors import DataError
from earwitness.io.tables import Table, cell, read_table

COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")


@dataclass(frozen=True)
class AudioCapsRow:
    """What identifies a clip: its ids and its start in seconds."""

    audiocap_ids: tuple[str, ...]
    youtube: str
    start: float


Finder = Callable[[AudioFiles, AudioCapsRow], list[Path]]


def read(captions: Sequence[Path], split: str | None) -> Reading:
    """The clips of AudioCaps files; one clip per YouTube id and start, with all its captions.

    The split is `split`, or else comes from the file name (train.csv, audiocaps_val.csv, ...).

    Raises:
        DataError: a file is missing, has other columns, or the split is unclear.
    """
    reading = Reading("audiocaps")
    read_entries: list[Entry] = []
    for path in csv_files(captions, "youtube_id"):
        table = read_table(path).nonempty("one clip or caption per row")
        table.need(COLUMNS, "AudioCaps")
        part = split or split_of_file(path)
        entries = [_entry(table, number, part) for number in range(len(table.rows))]
        read_entries += entries
        reading.rows += len(entries)
        reading.inputs.append(path)
        reading.notes += table.notes()
        reading.releases.append(("audiocaps", part))
    reading.take(read_entries)
    numbers: dict[tuple[str, str], list[str]] = {}
    for entry in read_entries:
        numbers.setdefault((entry.split, entry.id), []).extend(entry.names)
    reading.entries = [
        replace(entry, names=tuple(numbers[entry.split, entry.id])) for entry in reading.entries
    ]
    return reading


def locate(reading: Reading, files: AudioFiles) -> dict[int, list[Path]]:
    """The files of the entries by index, under the naming scheme that finds the most clips.

    The scheme is chosen separately for each split, and stated in the reading's notes.
    """
    found: dict[int, list[Path]] = {}
    for split in dict.fromkeys(entry.split for entry in reading.entries):
        rows = {i: _row(e) for i, e in enumerate(reading.entries) if e.split == split}
        own = files.within(name for name in _FOLDERS[split]) or files
        counts = {
            label: {i: paths for i, row in rows.items() if (paths := finder(own, row))}
            for label, finder in SCHEMES.items()
        }
        best = max(counts, key=lambda label: len(counts[label]))
        found |= counts[best]
        others = ", ".join(
            f"{label}: {len(hits)}" for label, hits in counts.items() if hits and label != best
        )
        if counts[best]:
            reading.notes.append(
                f"{split}: clips are named {best} ({len(counts[best])} of {len(rows)} found"
                + (f"; other schemes: {others})" if others else ")")
            )
        else:
            shown = ", ".join(SCHEMES)
            reading.notes.append(f"{split}: no clip found under any naming scheme ({shown})")
    return found


def csv_files(given: Sequence[Path], column: str) -> list[Path]:
    """The files themselves; for folders, the CSV files below with `column` in their first line.

    Raises:
        DataError: a folder holds no such file.
    """
    found: list[Path] = []
    for path in given:
        if not path.is_dir():
            found.append(path)
            continue
        below = [p for p in sorted(path.rglob("*.csv")) if column in _first_line(p)]
        if not below:
            raise DataError(f"{path}: holds no CSV file with a column '{column}'")
        found += below
    return found


def split_of_file(path: Path) -> str:
    """The split named in a file name (audiocaps_val.csv). Raises DataError."""
    words = path.stem.lower().replace("-", "_").replace(".", "_").split("_")
    names = {name for word in words if (name := split_name(word))}
    if len(names) != 1:
        raise DataError(
            f"{path}: the file name gives no split (train, val, test, development, evaluation); "
            "set one with --split"
        )
    return names.pop()


def _entry(table: Table, number: int, split: str) -> Entry:
    row = table.rows[number]
    youtube, start = cell(row, "youtube_id").strip(), cell(row, "start_time").strip()
    if not youtube or not start.replace(".", "", 1).isdigit():
        raise DataError(
            f"{table.place(number)}: youtube_id '{youtube}' and start_time '{start}'; expected an "
            "id and seconds"
        )
    return Entry(
        f"{youtube}_{start}",
        f"youtube:{youtube}",
        (cell(row, "caption"),),
        "audiocaps",
        split,
        names=(cell(row, "audiocap_id").strip(),),
        place=table.place(number),
    )


def _row(entry: Entry) -> AudioCapsRow:
    youtube, _, start = entry.id.rpartition("_")
    return AudioCapsRow(entry.names, youtube, float(start))


def _first_line(path: Path) -> str:
    with path.open("rb") as file:
        return file.readline().decode("latin-1")


def _youtube_finder(with_y: bool, scale: int | None, end: bool) -> Finder:
    def find(files: AudioFiles, row: AudioCapsRow) -> list[Path]:
        start = None if scale is None else row.start * scale
        return files.youtube.get((with_y, row.youtube, start, end), [])

    return find


def _by_number(files: AudioFiles, row: AudioCapsRow) -> list[Path]:
    return [path for number in row.audiocap_ids for path in files.stems.get(number, [])]


SCHEMES: dict[str, Finder] = {
    "<youtube_id>": _youtube_finder(False, None, False),
    "Y<youtube_id>": _youtube_finder(True, None, False),
    "<youtube_id>_<start>": _youtube_finder(False, 1, False),
    "<youtube_id>_<start in ms>": _youtube_finder(False, 1000, False),
    "<youtube_id>_<start>_<end>": _youtube_finder(False, 1, True),
    "<youtube_id>_<start in ms>_<end>": _youtube_finder(False, 1000, True),
    "Y<youtube_id>_<start>": _youtube_finder(True, 1, False),
    "Y<youtube_id>_<start in ms>": _youtube_finder(True, 1000, False),
    "Y<youtube_id>_<start>_<end>": _youtube_finder(True, 1, True),
    "Y<youtube_id>_<start in ms>_<end>": _youtube_finder(True, 1000, True),
    "<audiocap_id>": _by_number,
}
"""how clips are named, apart from extension and folder"""

_FOLDERS: dict[str, list[str]] = {
    "train": ["train", "training"],
    "validation": ["val", "valid", "validation"],
    "test": ["test", "eval", "evaluation"],
}
