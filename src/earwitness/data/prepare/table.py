"""A user's own table: which columns name the sound, its captions, its split and its recording."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earwitness.data.prepare.entries import Entry, Reading, split_name
from earwitness.errors import DataError
from earwitness.io.tables import Table, cell, read_table

AUDIO = (
    *("audio", "audio_path", "audio_file", "audio_filepath", "path", "file", "file_path"),
    *("filepath", "file_name", "filename", "fname", "wav", "wav_path", "location", "name"),
)
CAPTION = ("caption", "captions", "text", "sentence", "description")
ID = ("id", "clip_id", "audio_id", "sound_id", "uid", "key")
SPLIT = ("split", "subset", "set", "partition")
SECONDS = ("seconds", "duration", "length_seconds")
INDEX = ("index", "idx", "row", "unnamed: 0", "column 1", "no", "nr")
_NUMBERED = re.compile(r"(?:captions?|text|sentence|raw)_?(\d+)")


@dataclass(frozen=True)
class Columns:
    """The columns in use; `captions` holds one or more."""

    audio: str
    captions: tuple[str, ...]
    id: str | None = None
    group: str | None = None
    split: str | None = None
    seconds: str | None = None
    index: str | None = None

    def in_words(self) -> str:
        """The choice as text."""
        parts = [f"sound '{self.audio}'", f"captions {', '.join(map(repr, self.captions))}"]
        others = {"id": self.id, "recording": self.group, "split": self.split}
        parts += [f"{what} '{name}'" for what, name in others.items() if name]
        return "columns: " + "; ".join(parts)


def read(
    tables: Sequence[Path],
    split: str | None,
    *,
    audio: str | None = None,
    captions: Sequence[str] = (),
    id_column: str | None = None,
    group: str | None = None,
) -> tuple[Reading, list[tuple[Table, Columns]]]:
    """The clips of the tables, and each table with its columns (for `shifts`).

    Rows may have one caption or several; rows of the same sound are joined. A sound's split is
    `split`, else its row's, else train; its recording is the cell of `group`, else the stem of its
    file, or its whole path if a column gives the splits.

    Raises:
        DataError: a table cannot be read, or has no such columns.
    """
    reading = Reading("csv")
    entries: list[Entry] = []
    used: list[tuple[Table, Columns]] = []
    for path in tables:
        table = read_table(path).nonempty("one clip or caption per row")
        columns = choose(table, audio, captions, id_column, group)
        used.append((table, columns))
        entries += [
            _entry(table, number, columns, split)
            for number, row in enumerate(table.rows)
            if cell(row, columns.audio).strip()
        ]
        empty = len(table.rows) - sum(bool(cell(r, columns.audio).strip()) for r in table.rows)
        if empty:
            reading.notes.append(f"{path}: {empty} rows without a sound")
        reading.rows += len(table.rows)
        reading.inputs.append(path)
        reading.notes += [*table.notes(), f"{path}: {columns.in_words()}"]
    reading.take(entries)
    return reading, used


def choose(
    table: Table,
    audio: str | None = None,
    captions: Sequence[str] = (),
    id_column: str | None = None,
    group: str | None = None,
) -> Columns:
    """The columns given; the others are guessed from their names.

    Raises:
        DataError: a given column does not exist, or no column looks like sounds or captions.
    """
    for name in filter(None, (audio, *captions, id_column, group)):
        if name not in table.columns:
            raise DataError(
                f"{table.path}: no column '{name}'; expected one of {', '.join(table.columns)}"
            )
    sound = audio or _known(table, AUDIO) or id_column or _known(table, ID)
    texts = tuple(captions) or _caption_columns(table)
    for what, found, option in (("sounds", sound, "audio"), ("captions", texts, "caption")):
        if not found:
            raise DataError(
                f"{table.path}: no column looks like {what} among {', '.join(table.columns)}; "
                f"set it with --{option}-column (the file must have a header)"
            )
    assert sound is not None
    return Columns(
        sound,
        texts,
        id_column or next((c for c in [_known(table, ID)] if c != sound), None),
        group,
        _known(table, SPLIT),
        _known(table, SECONDS),
        _known(table, INDEX),
    )


def _entry(table: Table, number: int, columns: Columns, split: str | None) -> Entry:
    row = table.rows[number]
    name = cell(row, columns.audio).strip()
    own = cell(row, columns.split).strip()
    part = split or (split_name(own) or own.lower() if own else "train")
    path = Path(name.replace("\\", "/"))
    # If the splits are given, train/1.wav and test/1.wav are two recordings.
    unnamed = path.with_suffix("").as_posix() if columns.split else path.stem
    recording = cell(row, columns.group).strip() or unnamed
    seconds = cell(row, columns.seconds)
    return Entry(
        name,
        f"{'group' if columns.group else 'file'}:{recording}",
        tuple(text for column in columns.captions for text in _texts(row.get(column))),
        "csv",
        part,
        names=(name, name.replace("\\", "/").rpartition("/")[2]),
        promised_seconds=_number(seconds),
        place=table.place(number),
    )


def _known(table: Table, names: Sequence[str]) -> str | None:
    lower = {column.lower(): column for column in reversed(table.columns)}
    return next((lower[name] for name in names if name in lower), None)


def _caption_columns(table: Table) -> tuple[str, ...]:
    numbered = [
        (int(match[1]), column)
        for column in table.columns
        if (match := _NUMBERED.fullmatch(column.lower()))
    ]
    if numbered:
        return tuple(column for _, column in sorted(numbered))
    found = _known(table, CAPTION)
    return (found,) if found else ()


def _texts(value: Any) -> list[str]:
    if isinstance(value, list):
        return [str(text) for text in value if text]
    return [] if value is None else [str(value)]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
