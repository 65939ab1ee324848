"""Predictions and references from any table, COCO files or a run's folder, matched by id.

Ids are compared in composed Unicode (NFC), so that file names from macOS match those from Linux.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from earwitness.errors import DataError
from earwitness.io.names import key_of
from earwitness.io.suffixes import SOUND_SUFFIXES
from earwitness.io.tables import Cells, read_table
from earwitness.io.text_files import read_json

ID_COLUMNS = [
    "image_id",
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
_NUMBERED = re.compile(r"(?:captions?|references?|raw)_\d+")
_NAMED = 5


@dataclass(frozen=True)
class Matched:
    """Captions and references per clip, in the references' order; `notes` cover the rest."""

    ids: list[str]
    candidates: list[str]
    references: list[list[str]]
    notes: list[str]


def read_predictions(
    path: Path, *, id_column: str | None = None, text_column: str | None = None
) -> dict[str, str]:
    """Clip id to caption. A row with an `error` and no caption counts as missing.

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
        raise DataError(f"{path}: more than one caption for {_name(twice)}; expected one per clip")
    if not captions:
        raise DataError(f"{path}: holds no captions")
    return captions


def read_references(
    path: Path, *, id_column: str | None = None, text_column: str | None = None
) -> dict[str, list[str]]:
    """Clip id to references: numbered columns, a list, or one caption per row with the
    id repeated. COCO caption files (`images`, `annotations`) are read by `image_id`.

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
    """Predictions and references paired by id, else by file name, else by that without extension.

    With `partial`, only clips on both sides are kept, and `notes` lists the others.

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
        several = "1 prediction has" if len(extra) == 1 else f"{len(extra)} predictions have"
        problems.append(f"{several} no references: {_name(extra)}")
    if not common or (problems and not partial):
        advice = "" if not common else "; --partial scores the clips on both sides"
        raise DataError("; ".join(problems) + advice)
    kept = [(right[k], predictions[left[k]], references[right[k]]) for k in right if k in left]
    ids, candidates, groups = zip(*kept, strict=True)
    return Matched([*ids], [*candidates], [*groups], notes + problems)


def without_suffix(name: str) -> str:
    """The file name of a path, without an audio extension."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.stem if path.suffix.lower() in SOUND_SUFFIXES else path.name


_KEYS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("id", str),
    ("file name", lambda name: PurePosixPath(name.replace("\\", "/")).name),
    ("file name without suffix", without_suffix),
)


def _keyed(names: Iterable[str], key: Callable[[str], str]) -> dict[str, str] | None:
    """Key to name; None if two names share a key."""
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


def _rows(path: Path) -> list[tuple[str, Cells]]:
    """The rows of a table in any format, with their place ("file, line n")."""
    if path.suffix.lower() == ".json":
        return _json(path)
    table = read_table(path, "file").complete()
    return [(table.place(number), row) for number, row in enumerate(table.rows)]


def _json(path: Path) -> list[tuple[str, Cells]]:
    """Rows of a list of objects, of COCO captions, or of an object that maps ids to captions."""
    content = read_json(path)
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        return _coco(path, content)
    if isinstance(content, dict) and _is_list_of_objects(content.get("data")):
        content = content["data"]
    if isinstance(content, dict):
        return [
            (f"{path}, {name!r}", {"id": name, "captions" if isinstance(v, list) else "caption": v})
            for name, v in content.items()
        ]
    if not isinstance(content, list):
        raise DataError(f"{path}: expected a list of objects, or an object of id: caption")
    places = [f"{path}, item {number}" for number in range(1, len(content) + 1)]
    return [(place, _object(place, row)) for place, row in zip(places, content, strict=True)]


def _coco(path: Path, content: Cells) -> list[tuple[str, Cells]]:
    """The annotations of a COCO caption file, each with the `file_name` of its image.

    An annotation's own `id` numbers the caption and is dropped. An image without annotations gives
    a row with an empty list of captions.
    """
    rows: list[tuple[str, Cells]] = []
    images: dict[object, Cells] = {}
    for number, image in enumerate(content.get("images") or [], start=1):
        place = f"{path}, image {number}"
        images[_object(place, image).get("id")] = image
    captioned = set()
    for number, annotation in enumerate(content["annotations"], start=1):
        place = f"{path}, annotation {number}"
        row = {name: v for name, v in _object(place, annotation).items() if name != "id"}
        image = images.get(row.get("image_id"), {})
        captioned.add(row.get("image_id"))
        rows.append((place, {**row, **_file_name(image)}))
    for key, image in images.items():
        if key not in captioned:
            rows.append(
                (f"{path}, image {key}", {"image_id": key, "captions": [], **_file_name(image)})
            )
    return rows


def _is_list_of_objects(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _file_name(image: Cells) -> Cells:
    return {"file_name": image["file_name"]} if image.get("file_name") else {}


def _object(place: str, row: object) -> Cells:
    if not isinstance(row, dict):
        raise DataError(
            f"{place}: expected an object with an id and a caption, got {str(row)[:60]!r}"
        )
    return row


def _column(row: Cells, named: str | None, known: Sequence[str]) -> str | None:
    return next((c for c in ([named] if named else known) if row.get(c) is not None), None)


def _id(place: str, row: Cells, named: str | None) -> str:
    column = _column(row, named, ID_COLUMNS)
    if column is None:
        raise DataError(_no_column(place, "id", row, ID_COLUMNS, "--id-column"))
    value = row[column]
    if not isinstance(value, str | int) or not str(value).strip():
        raise DataError(
            f"{place}: expected text or a whole number as the id in column {column!r}, "
            f"got {value!r}"
        )
    return key_of(str(value).strip())


def _references(place: str, row: Cells, named: str | None) -> tuple[list[str], bool]:
    """The references in a row, and whether they are all references of its clip."""
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
        raise DataError(f"{place}: expected text in column {column!r}, got {str(value)[:60]!r}")
    return value


def _no_column(place: str, what: str, row: Cells, known: Sequence[str], option: str) -> str:
    return (
        f"{place}: no {what} column among {', '.join(map(str, row))}; known names are "
        f"{', '.join(known)}, or choose one with {option}"
    )


def _name(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(repr(name) for name in names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"
