"""Tables as found in the wild: CSV and TSV of any line end, JSON, JSON lines, parquet."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earwitness.errors import DataError, MissingDependencyError

KINDS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
_CELL_LIMIT = 1 << 24


@dataclass(frozen=True)
class Table:
    """The rows of a file as dicts, with the line or row that each began at."""

    path: Path
    columns: tuple[str, ...]
    rows: list[dict[str, Any]]
    lines: list[int]
    repeated_headers: int = 0
    latin: bool = False

    def place(self, number: int) -> str:
        """Where row `number` (from 0) stands, for messages."""
        return f"{self.path}, line {self.lines[number]}"

    def notes(self) -> list[str]:
        """What was put right while reading."""
        found = []
        if self.repeated_headers:
            found.append(
                f"{self.path}: {self.repeated_headers} header line(s) among the rows left out"
            )
        if self.latin:
            found.append(f"{self.path}: not UTF-8, read as Windows-1252 / Latin-1")
        return found


def read_table(path: Path) -> Table:
    """The table in `path`; columns keep their order and lose surrounding spaces.

    A byte order mark, Windows line ends, newlines within quoted cells and comment lines (#) before
    the header are understood; lines equal to the header are left out and counted.

    Raises:
        DataError: the file is missing, unreadable, empty, or a row has more cells than the header.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: a table is {', '.join(KINDS)}")
    try:
        table = reader(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; expected a table ({', '.join(KINDS)})") from None
    except IsADirectoryError:
        raise DataError(f"{path}: a folder; expected a table ({', '.join(KINDS)})") from None
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise DataError(f"{path}: not a readable table ({error})") from None
    if not table.rows:
        raise DataError(f"{path}: no rows; expected one clip or caption a row")
    return table


def need(table: Table, columns: Sequence[str], layout: str) -> None:
    """Checks that `columns` are there.

    Raises:
        DataError: one is missing; says so where the header looks like a row of data.
    """
    missing = [name for name in columns if name not in table.columns]
    if not missing:
        return
    if len(table.columns) >= len(columns) and not set(columns) & set(table.columns):
        raise DataError(
            f"{table.path}: the first line ({', '.join(table.columns)[:80]}) is no header of "
            f"{layout}; put the line {','.join(columns)} before the data, or it would count as one"
        )
    raise DataError(
        f"{table.path}: no column '{missing[0]}'; {layout} has {', '.join(columns)}, this file has "
        f"{', '.join(table.columns)}"
    )


def cell(row: dict[str, Any], column: str | None) -> str:
    """The text of a cell, empty where there is none."""
    value = row.get(column) if column else None
    return "" if value is None else str(value)


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises DataError where it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; expected JSON") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable as JSON ({error})") from None


def text_of(path: Path) -> tuple[str, bool]:
    """The text of a file with its line ends, and whether it had to be read as Windows-1252."""
    contents = path.read_bytes()
    try:
        return contents.decode("utf-8-sig"), False
    except UnicodeDecodeError:
        # Clotho's metadata; Latin-1 for the five bytes that Windows-1252 leaves open.
        try:
            return contents.decode("cp1252"), True
        except UnicodeDecodeError:
            return contents.decode("latin-1"), True


def _csv(path: Path) -> Table:
    text, latin = text_of(path)
    csv.field_size_limit(_CELL_LIMIT)
    lines = list(io.StringIO(text, newline=""))
    skipped, first = _comments(lines)
    reader = csv.reader(
        lines[skipped:],
        delimiter=_delimiter(path, first),
        strict=True,
        skipinitialspace=bool(first),
    )
    rows: list[dict[str, Any]] = []
    starts: list[int] = []
    header, repeated = first or _header(next(reader, [])), 0
    before = reader.line_num
    for cells in reader:
        start, before = skipped + before + 1, reader.line_num
        if not any(cell.strip() for cell in cells):
            continue
        if [cell.strip() for cell in cells] == header:
            repeated += 1
            continue
        if len(cells) > len(header):
            raise DataError(
                f"{path}, line {start}: {len(cells)} cells, the header has {len(header)}; a "
                "caption with a comma needs quotes"
            )
        rows.append(dict(zip(header, cells + [""] * (len(header) - len(cells)), strict=True)))
        starts.append(start)
    return Table(path, tuple(header), rows, starts, repeated, latin)


def _comments(lines: Sequence[str]) -> tuple[int, list[str]]:
    """How many lines before the data start with #, and the header if the last of them is one.

    AudioSet's segment lists hold their header in a comment: # YTID, start_seconds, ...
    """
    count = 0
    while count < len(lines) and lines[count].startswith("#"):
        count += 1
    last = lines[count - 1].lstrip("# ").strip() if count else ""
    return count, _header(last.split(",")) if last.upper().startswith("YTID") else []


def _header(cells: Sequence[str]) -> list[str]:
    return [cell.strip() or f"column {number}" for number, cell in enumerate(cells, start=1)]


def _delimiter(path: Path, header: Sequence[str]) -> str:
    if path.suffix.lower() == ".tsv":
        return "\t"
    if header:
        return ","
    with path.open("rb") as file:
        line = file.readline()
    counts = {mark: line.count(mark.encode()) for mark in (",", ";", "\t")}
    return max(counts, key=lambda mark: counts[mark])


def _json_lines(path: Path) -> Table:
    rows, lines = [], []
    text = path.read_text(encoding="utf-8-sig")
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            rows.append(json.loads(line))
            lines.append(number)
    return _objects(path, rows, lines)


def _json(path: Path) -> Table:
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    if isinstance(content, dict):
        content = content.get("data")
    if not isinstance(content, list):
        raise DataError(f"{path}: expected a list of objects, or an object with a list 'data'")
    return _objects(path, content, list(range(1, len(content) + 1)))


def _objects(path: Path, rows: list[Any], lines: list[int]) -> Table:
    for line, row in zip(lines, rows, strict=True):
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {line}: expected an object, found {str(row)[:60]!r}")
    columns = tuple(dict.fromkeys(str(name) for row in rows for name in row))
    return Table(path, columns, rows, lines)


def _parquet(path: Path) -> Table:
    try:
        from pyarrow import parquet
    except ImportError:
        raise MissingDependencyError(
            f"{path}: parquet needs the package pyarrow; pip install pyarrow, or use CSV or JSONL"
        ) from None
    rows = parquet.read_table(path).to_pylist()
    return _objects(path, rows, list(range(1, len(rows) + 1)))


_READERS: dict[str, Callable[[Path], Table]] = {
    ".csv": _csv,
    ".tsv": _csv,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".parquet": _parquet,
}
