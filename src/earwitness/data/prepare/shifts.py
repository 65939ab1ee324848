"""Detects captions that are one row off their clips, if a second source shows it.

A table in which only the caption column has shifted looks like any other table and is not detected.
Detected are ids that name the next row's sound, numbers that start at 0 for files that start at 1,
and durations that match the neighboring row.
"""

from collections.abc import Sequence
from pathlib import Path

from earwitness.data.prepare.audio_files import AudioFiles
from earwitness.data.prepare.entries import Entry, FoundClip
from earwitness.data.prepare.table import Columns
from earwitness.errors import DataError
from earwitness.io.tables import Table, cell

_FEWEST = 4
_MOST_AT_HOME = 0.1
_FITTING = 0.9
_SECONDS = 0.5
_ADVICE = "; --trust-ids skips this check"


def check_columns(table: Table, columns: Columns) -> None:
    """Raises DataError if the ids consistently name the sound of the row before or after."""
    if columns.id is None or len(table.rows) < _FEWEST:
        return
    ids = [cell(row, columns.id).strip() for row in table.rows]
    stems = [_stem(cell(row, columns.audio)) for row in table.rows]
    if len(set(ids)) < _FEWEST or _share(ids, stems, 0) > _MOST_AT_HOME:
        return
    for shift in (-1, 1):
        if _share(ids, stems, shift) >= _FITTING:
            side = "next" if shift == 1 else "previous"
            raise DataError(
                f"{table.path}: column '{columns.audio}' names the sound whose id is in the "
                f"{side} row's '{columns.id}' ('{ids[1]}' next to '{stems[1]}'): the captions are "
                f"one row off{_ADVICE}"
            )


def gap_in_index(table: Table, columns: Columns) -> str | None:
    """A sentence if a column that counts the rows jumps: rows were lost or inserted."""
    if columns.index is None:
        return None
    texts = [cell(row, columns.index).strip() for row in table.rows]
    if not all(text.isdigit() for text in texts):
        return None
    numbers = [int(text) for text in texts]
    jumps = [
        i for i in range(1, len(numbers)) if numbers[i] != numbers[i - 1] + 1 and numbers[i] != 0
    ]
    if not jumps or len(jumps) > len(numbers) // 10:
        return None
    first = jumps[0]
    return (
        f"{table.place(first)}: column '{columns.index}' jumps from {numbers[first - 1]} to "
        f"{numbers[first]}, {len(jumps)} jump(s) in total; rows may be lost"
    )


def check_numbers(
    entries: Sequence[Entry], located: dict[int, list[Path]], files: AudioFiles
) -> None:
    """Raises DataError if clips are numbered from 0 and files from 1, or the other way around.

    The sign is one number without a file at one end and one file without a clip at the other.
    """
    numbers = [_stem(entry.names[0]) if entry.names else "" for entry in entries]
    stems = {path.stem for path in files.paths}
    if len(numbers) < _FEWEST or not all(n.isdigit() for n in [*numbers, *stems]):
        return
    wanted, there = {int(n) for n in numbers}, {int(n) for n in stems}
    lost, spare = wanted - there, there - wanted
    if len(wanted) != len(there) or len(lost) != 1 or len(spare) != 1:
        return
    if {min(wanted), max(there)} != lost | spare and {max(wanted), min(there)} != lost | spare:
        return
    if max(wanted) - min(wanted) + 1 == len(wanted):
        raise DataError(
            f"the clips are numbered {min(wanted)} to {max(wanted)} but the files {min(there)} to "
            f"{max(there)} below {files.root}: captions and sounds are off by one{_ADVICE}"
        )


def check_seconds(clips: Sequence[FoundClip]) -> str | None:
    """A sentence on clips whose duration differs from that in their row.

    Raises:
        DataError: most durations are wrong, and match the row before or after.
    """
    known = [clip for clip in clips if clip.entry.promised_seconds is not None]
    if not known:
        return None
    stated = [clip.entry.promised_seconds or 0.0 for clip in known]
    measured = [clip.seconds for clip in known]
    wrong = [i for i, (a, b) in enumerate(zip(stated, measured, strict=True)) if not _near(a, b)]
    if len(known) >= _FEWEST and len(wrong) > len(known) // 2:
        for shift in (-1, 1):
            fits = [
                _near(stated[i + shift], seconds)
                for i, seconds in enumerate(measured)
                if 0 <= i + shift < len(stated)
            ]
            if sum(fits) >= _FITTING * len(fits):
                raise DataError(
                    f"the durations of {sum(fits)} of {len(fits)} sounds match the "
                    f"{'next' if shift == 1 else 'previous'} row (from {known[0].entry.place}): "
                    f"captions and sounds are off by one{_ADVICE}"
                )
    if not wrong:
        return None
    first = known[wrong[0]]
    return (
        f"{len(wrong)} of {len(known)} clips differ in duration from their row (the first: "
        f"'{first.entry.id}', {stated[wrong[0]]:.2f} s stated, {measured[wrong[0]]:.2f} s found)"
    )


def _near(stated: float, measured: float) -> bool:
    return abs(stated - measured) <= max(_SECONDS, 0.02 * stated)


def _share(ids: Sequence[str], stems: Sequence[str], shift: int) -> float:
    pairs = [(stem, ids[i + shift]) for i, stem in enumerate(stems) if 0 <= i + shift < len(ids)]
    return sum(stem == other for stem, other in pairs) / max(1, len(pairs))


def _stem(name: str) -> str:
    return Path(name.strip().replace("\\", "/")).stem
