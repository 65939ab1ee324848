"""Reads predictions and references (CSV, TSV, JSONL, JSON, a run's folder); matches by id."""

import csv
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from earwitness.errors import DataError

ID_COLUMNS = [
    "id",
    "file",
    "file_name",
    "filename",
    "fname",
    "clip",
    "clip_id",
    "path",
    "audio",
    "audio_path",
    "source",
    "youtube_id",
    "name",
]
TEXT_COLUMNS = ["caption", "candidate", "prediction", "predicted", "text", "hypothesis"]
REFERENCE_COLUMNS = ["reference", "caption", "text"]
LIST_COLUMNS = ["references", "captions", "refs"]
RUN_FILES = ("captions.jsonl", "captions.csv", "predictions.jsonl", "predictions.csv")
AUDIO_SUFFIXES = frozenset(
    [
        ".wav",
        ".flac",
        ".mp3",
        ".ogg",
        ".oga",
        ".opus",
        ".m4a",
        ".aac",
        ".aiff",
        ".aif",
        ".mp4",
        ".webm",
        ".wma",
        ".au",
    ]
)
_NUMBERED = re.compile(r"(?:captions?|references?|raw)_\d+")
_NAMED = 5


@dataclass(frozen=True)
class Matched:
    """Captions and references clip by clip, in the references' order; `notes` on the rest."""

    ids: list[str]
    candidates: list[str]
    references: list[list[str]]
    notes: list[str]


def read_predictions(
    path: Path, *, id_column: str | None = None, text_column: str | None = None
) -> dict[str, str]:
    """Clip id to caption. A row that holds an `error` and no caption counts as missing.

    Raises:
        DataError: the file cannot be read, lacks a column, or names a clip twice.
    """
    path = _run_file(path)
    captions: dict[str, str] = {}
    twice: list[str] = []
    for place, row in _rows(path):
        column = _column(row, text_column, TEXT_COLUMNS)
        if column is None and row.get("error"):
            continue
        if column is None:
            raise DataError(_no_column(place, "caption", row, TEXT_COLUMNS, "--text-column"))
        name = _id(place, row, id_column)
        if name in captions:
            twice.append(name)
        captions[name] = _text(place, column, row[column])
    if twice:
        raise DataError(
            f"{path}: more than one caption for {_name(twice)}; one per clip was expected"
        )
    if not captions:
        raise DataError(f"{path}: holds no captions")
    return captions


def read_references(
    path: Path, *, id_column: str | None = None, text_column: str | None = None
) -> dict[str, list[str]]:
    """Clip id to references: numbered columns, a list, or one caption a row with the id repeated.

    Raises:
        DataError: the file cannot be read, lacks a column, names a clip twice, or leaves one
            without a reference.
    """
    references: dict[str, list[str]] = {}
    twice: list[str] = []
    for place, row in _rows(path):
        name = _id(place, row, id_column)
        texts, whole = _references(place, row, text_column)
        if name in references and whole:
            twice.append(name)
        references.setdefault(name, []).extend(texts)
    if twice:
        raise DataError(f"{path}: more than one row of references for {_name(twice)}")
    bare = [name for name, texts in references.items() if not texts]
    if bare:
        raise DataError(f"{path}: no reference for {_name(bare)}")
    if not references:
        raise DataError(f"{path}: holds no references")
    return references


def match(
    predictions: dict[str, str], references: dict[str, list[str]], *, partial: bool = False
) -> Matched:
    """Predictions and references paired by id, else by file name, else by that without suffix.

    With `partial` only the clips on both sides are kept, and `notes` name the others.

    Raises:
        DataError: ids are missing or extra (and not `partial`), or no id is on both sides.
    """
    best: tuple[int, dict[str, str], dict[str, str], str] | None = None
    for how, key in _KEYS:
        left, right = _keyed(predictions, key), _keyed(references, key)
        if left is None or right is None:
            continue
        common = len(left.keys() & right.keys())
        if best is None or common > best[0]:
            best = (common, left, right, how)
    assert best is not None
    common, left, right, how = best
    missing = [name for key, name in right.items() if key not in left]
    extra = [name for key, name in left.items() if key not in right]
    notes = [] if how == _KEYS[0][0] else [f"ids matched by {how}"]
    problems = []
    if missing:
        problems.append(
            f"{len(missing)} of {len(right)} clips have no prediction: {_name(missing)}"
        )
    if extra:
        problems.append(f"{len(extra)} predictions have no references: {_name(extra)}")
    if not common or (problems and not partial):
        advice = "" if not common else "; --partial scores the clips on both sides"
        raise DataError("; ".join(problems) + advice)
    kept = [(right[k], predictions[left[k]], references[right[k]]) for k in right if k in left]
    ids, candidates, groups = zip(*kept, strict=True)
    return Matched([*ids], [*candidates], [*groups], notes + problems)


def without_suffix(name: str) -> str:
    """The file name of a path, without the suffix of an audio format."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.stem if path.suffix.lower() in AUDIO_SUFFIXES else path.name


_KEYS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("id", str),
    ("file name", lambda name: PurePosixPath(name.replace("\\", "/")).name),
    ("file name without suffix", without_suffix),
)


def _keyed(names: Iterable[str], key: Callable[[str], str]) -> dict[str, str] | None:
    """Key to name; None where two names share a key."""
    pairs = [(key(name), name) for name in names]
    keyed = dict(pairs)
    return keyed if len(keyed) == len(pairs) else None


def _run_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = [path / name for name in RUN_FILES if (path / name).is_file()]
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise DataError(
            f"{path}: expected one of {', '.join(RUN_FILES)} in this folder, found {names}"
        )
    return found[0]


def _rows(path: Path) -> list[tuple[str, dict[str, object]]]:
    """The rows of a table with their place ("file, line n"), whatever the format."""
    readers = {".csv": _csv, ".tsv": _csv, ".jsonl": _jsonl, ".ndjson": _jsonl, ".json": _json}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: unknown format {path.suffix!r}; expected {', '.join(readers)}")
    try:
        return reader(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, csv.Error, json.JSONDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None


def _csv(path: Path) -> list[tuple[str, dict[str, object]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        rows: list[tuple[str, dict[str, object]]] = []
        for row in reader:
            place = f"{path}, line {reader.line_num}"
            if None in row or None in row.values():
                raise DataError(
                    f"{place}: {len(reader.fieldnames or [])} cells were expected in each row"
                )
            rows.append((place, {str(name).strip(): value for name, value in row.items()}))
        return rows


def _jsonl(path: Path) -> list[tuple[str, dict[str, object]]]:
    lines = path.read_text(encoding="utf-8-sig").split("\n")
    rows: list[tuple[str, dict[str, object]]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{place}: not JSON ({error.msg})") from None
        rows.append((place, _object(place, row)))
    return rows


def _json(path: Path) -> list[tuple[str, dict[str, object]]]:
    """A list of objects, or one object that maps ids to a caption or to a list of captions."""
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    if isinstance(content, dict):
        return [
            (f"{path}, {name!r}", {"id": name, "captions" if isinstance(v, list) else "caption": v})
            for name, v in content.items()
        ]
    if not isinstance(content, list):
        raise DataError(f"{path}: expected a list of objects, or an object of id: caption")
    return [
        (p, _object(p, row)) for i, row in enumerate(content) for p in [f"{path}, item {i + 1}"]
    ]


def _object(place: str, row: object) -> dict[str, object]:
    if not isinstance(row, dict):
        raise DataError(
            f"{place}: expected an object with an id and a caption, got {str(row)[:60]!r}"
        )
    return row


def _column(row: dict[str, object], named: str | None, known: Sequence[str]) -> str | None:
    return next((c for c in ([named] if named else known) if row.get(c) is not None), None)


def _id(place: str, row: dict[str, object], named: str | None) -> str:
    column = _column(row, named, ID_COLUMNS)
    if column is None:
        raise DataError(_no_column(place, "id", row, ID_COLUMNS, "--id-column"))
    value = row[column]
    if not isinstance(value, str | int) or not str(value).strip():
        raise DataError(
            f"{place}: {column} {value!r} is no id; a text or a whole number was expected"
        )
    return str(value).strip()


def _references(place: str, row: dict[str, object], named: str | None) -> tuple[list[str], bool]:
    """The references in a row, and whether they are all of its clip."""
    numbered = [name for name in row if _NUMBERED.fullmatch(name)]
    if numbered and named is None:
        texts = [(n, row[n]) for n in numbered if row[n] is not None and str(row[n]).strip()]
        return [_text(place, name, value) for name, value in texts], True
    column = _column(row, named, [*LIST_COLUMNS, *REFERENCE_COLUMNS])
    if column is None:
        known = ["caption_1, caption_2, ...", *LIST_COLUMNS, *REFERENCE_COLUMNS]
        raise DataError(_no_column(place, "references", row, known, "--reference-column"))
    value = row[column]
    if isinstance(value, list):
        return [_text(place, column, text) for text in value], True
    return [_text(place, column, value)], False


def _text(place: str, column: str, value: object) -> str:
    if not isinstance(value, str):
        raise DataError(f"{place}: {column} {str(value)[:60]!r} is no text")
    return value


def _no_column(
    place: str, what: str, row: dict[str, object], known: Sequence[str], option: str
) -> str:
    return (
        f"{place}: no {what} column among {', '.join(map(str, row))}; known names are "
        f"{', '.join(known)}, or name one with {option}"
    )


def _name(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(repr(name) for name in names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"
