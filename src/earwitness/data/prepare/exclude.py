"""Lists of recordings that must not be trained on: test sets, blacklists, other manifests."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from earwitness.data.prepare.audio_files import stem_of, youtube_id
from earwitness.data.prepare.clotho import sound_ids
from earwitness.data.prepare.entries import Entry
from earwitness.errors import DataError
from earwitness.io.suffixes import SOUND_SUFFIXES
from earwitness.io.tables import Table, cell, read_table, table_of
from earwitness.io.text_files import read_json, read_text

_NAMESPACES = {
    **{"youtube_id": "youtube", "ytid": "youtube", "segment_id": "youtube"},
    **{"sound_id": "freesound", "freesound_id": "freesound"},
}
_PLAIN = ("id", "clip_id", "file_name", "filename", "fname", "audio", "file", "path", "name")
_FIRST_IS_ID = re.compile(r"[\w-]+(?:\.\w+)?", re.ASCII)


@dataclass
class BlackList:
    """What a file excludes: recordings with a namespace, and ids that match in any namespace."""

    path: Path
    recordings: set[str] = field(default_factory=set)
    ids: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def names(self, entry: Entry) -> bool:
        """Whether the entry is on the list."""
        return entry.recording in self.recordings or not self.ids.isdisjoint(_ids_of(entry))

    def __len__(self) -> int:
        return len(self.recordings) + len(self.ids)


def read_black_list(path: Path, metadata: Sequence[Path] = ()) -> BlackList:
    """The recordings listed in a file.

    The file may be an AudioCaps or AudioSet segment list (YouTube ids), Clotho's metadata
    (Freesound numbers) or captions (file names; with `metadata`, their Freesound numbers), a
    WavCaps blacklist (a JSON object of lists), a manifest written by `earwitness prepare`
    (recordings), any other table with a column of ids, or a list of ids (.txt, one per line; JSON).

    Raises:
        DataError: the file cannot be read or names nothing.
    """
    found = BlackList(path)
    suffix = path.suffix.lower()
    if suffix == ".json":
        _add_json(found, read_json(path))
    elif suffix in (".txt", ".lst", ".ids"):
        _add_lines(found)
    else:
        _add_table(found, read_table(path).nonempty("one clip or caption per row"), metadata)
    if not len(found):
        raise DataError(f"{path}: names no id; expected a list of clip, YouTube or Freesound ids")
    return found


def _add_lines(found: BlackList) -> None:
    lines = read_text(found.path, expected="a list of ids").text.splitlines()
    found.ids |= _plain(line for line in lines if not line.startswith("#"))


def _add_json(found: BlackList, content: Any) -> None:
    """A list of ids, of objects with ids, or an object of such lists by source."""
    parts = content.items() if isinstance(content, dict) else [("", content)]
    for source, values in parts:
        if not isinstance(values, list):
            continue
        if values and isinstance(values[0], dict):
            rows = [row for row in values if isinstance(row, dict)]
            _add_table(found, table_of(found.path, rows), ())
            continue
        texts = [str(value) for value in values if isinstance(value, str | int)]
        space = {"audioset": "youtube", "audiocaps": "youtube", "freesound": "freesound"}.get(
            source.lower().partition("_")[0]
        )
        found.recordings |= {_recording(space, text) for text in texts} if space else set()
        found.ids |= set() if space else _plain(texts)


def _add_table(found: BlackList, table: Table, metadata: Sequence[Path]) -> None:
    lower = {column.lower(): column for column in table.columns}
    if "recording" in lower:
        found.recordings |= {cell(row, lower["recording"]) for row in table.rows} - {""}
        return
    spaces = [name for name in _NAMESPACES if name in lower]
    if spaces:
        for name in spaces:
            values = (cell(row, lower[name]).strip() for row in table.rows)
            found.recordings |= {
                _recording(_NAMESPACES[name], value)
                for value in values
                if value and value.lower() != "not found"
            }
        return
    column = next((lower[name] for name in _PLAIN if name in lower), None)
    if column is None and len(table.columns) == 1:
        # A bare list of ids: the supposed header is its first line.
        column = table.columns[0]
        if _FIRST_IS_ID.fullmatch(column):
            found.ids |= _plain([column])
    if column is None:
        raise DataError(
            f"{found.path}: no column of ids among {', '.join(table.columns)}; expected one of "
            f"{', '.join([*_NAMESPACES, *_PLAIN])}"
        )
    names = [cell(row, column).strip() for row in table.rows]
    found.ids |= _plain(names)
    if "caption_1" in lower and "file_name" in lower:
        _add_clotho(found, set(names), metadata)


def _add_clotho(found: BlackList, names: set[str], metadata: Sequence[Path]) -> None:
    """Freesound numbers of Clotho's file names, from `metadata` or files next to the captions."""
    own = found.path.with_name(found.path.name.replace("captions", "metadata"))
    sources = [*metadata, *([own] if own != found.path and own.is_file() else [])]
    known = {name: sound for (_, name), sound in sound_ids(sources).items()}
    found.recordings |= {f"freesound:{known[name]}" for name in names if name in known}
    bare = sum(name not in known for name in names)
    if bare:
        found.notes.append(
            f"{found.path}: {bare} of {len(names)} Clotho clips without a Freesound number; they "
            "match WavCaps' FreeSound clips only with --metadata clotho_metadata_....csv"
        )


def _recording(space: str | None, text: str) -> str:
    text = text.strip()
    plain = youtube_id(text) if space == "youtube" else stem_of(text)
    return f"{space}:{plain or stem_of(text)}"


def _plain(values: Iterable[str]) -> set[str]:
    texts = {value.strip() for value in values} - {""}
    # "FreeSound/12" is an id and stays whole; "wavs/12.flac" is a file, and also means "12".
    return texts | {stem_of(text) for text in texts if Path(text).suffix.lower() in SOUND_SUFFIXES}


def _ids_of(entry: Entry) -> set[str]:
    own = entry.recording.partition(":")[2]
    ids = {entry.id, stem_of(entry.id), own, entry.recording}
    return ids | ({f"Y{own}"} if entry.recording.startswith("youtube:") else set())
