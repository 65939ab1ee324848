"""The one reader of tables: CSV and TSV as spreadsheets write them, JSON, JSONL, parquet.

It understands byte order marks, UTF-16, Windows-1252, commas, semicolons and tabs, any line ending,
line breaks in quoted cells, Excel's first line `sep=;`, comment lines (#) before the header, and
headers repeated among the rows.
"""

import csv
import io
import itertools
import json
import re
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from earwitness.errors import DataError, one_line
from earwitness.io.kinds import is_list, is_object
from earwitness.io.names import key_of
from earwitness.io.parquet import need_parquet
from earwitness.io.text_files import Encoding, missing, read_json, read_text, readable

KINDS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".pq")
DELIMITERS = (",", ";", "\t")

Cells = dict[str, Any]

_CELL_LIMIT = 1 << 24
_QUOTED = re.compile(r'"[^"]*"')
_EXCEL = re.compile(r"sep=(.)\s*")
_csv_limit = threading.Lock()


@dataclass
class Stream:
    """A table whose rows are read one by one, each with its line (or number, from 1).

    `columns` is the header, or () if each row names its own. The counts are complete once the rows
    have been read.
    """

    path: Path
    columns: tuple[str, ...]
    rows: Iterator[tuple[int, Cells]] = field(repr=False)
    encoding: Encoding = "utf-8"
    repeated_headers: int = 0
    short: list[int] = field(default_factory=list[int])
    """lines with fewer cells than the header"""


@dataclass(frozen=True)
class Table:
    """The rows of a file as dicts, with the line or row at which each starts."""

    path: Path
    columns: tuple[str, ...]
    rows: list[Cells]
    lines: list[int]
    encoding: Encoding = "utf-8"
    repeated_headers: int = 0
    short: tuple[int, ...] = ()

    def place(self, number: int) -> str:
        """Where row `number` (from 0) is, for messages."""
        return f"{self.path}, line {self.lines[number]}"

    def notes(self) -> list[str]:
        """What was corrected while reading."""
        found: list[str] = []
        if self.repeated_headers:
            found.append(
                f"{self.path}: skipped {self.repeated_headers} header line(s) among the rows"
            )
        if self.encoding == "cp1252":
            found.append(f"{self.path}: not UTF-8, read as Windows-1252")
        return found

    def nonempty(self, expected: str) -> "Table":
        """This table. Raises DataError if it has no rows."""
        if not self.rows:
            raise DataError(f"{self.path}: no rows; expected {expected}")
        return self

    def complete(self) -> "Table":
        """This table. Raises DataError if a row has fewer cells than the header."""
        if self.short:
            raise DataError(
                f"{self.path}, line {self.short[0]}: expected {len(self.columns)} cells, as in the "
                "header; this row has fewer"
            )
        return self

    def need(self, columns: Sequence[str], layout: str) -> "Table":
        """This table. Raises DataError if it lacks one of `columns`, which `layout` has."""
        absent = [name for name in columns if name not in self.columns]
        if not absent:
            return self
        if len(self.columns) >= len(columns) > 1 and not set(columns) & set(self.columns):
            raise DataError(
                f"{self.path}: the first line ({', '.join(self.columns)[:80]}) is not the header "
                f"of {layout}; put the line {','.join(columns)} before the data, so that the first "
                "row is not read as a header"
            )
        raise DataError(
            f"{self.path}: no column '{absent[0]}'; {layout} has {', '.join(columns)}, but this "
            f"file has {', '.join(self.columns) or 'none'}"
        )


def read_table(path: Path | str, what: str = "table", kinds: Sequence[str] = KINDS) -> Table:
    """The table in `path`; column names keep their order and lose surrounding spaces.

    A row with fewer cells than the header is padded with empty ones (see `Table.complete`).
    JSON is a list of objects, or an object that holds one as "data". `what` names the file in
    messages.

    Raises:
        DataError: the file is missing, of another kind, unreadable, or a row has more cells than
            the header.
        MissingDependencyError: parquet without pyarrow.
    """
    stream = open_table(path, what, kinds)
    numbered = list(stream.rows)
    rows = [row for _, row in numbered]
    return Table(
        stream.path,
        stream.columns or columns_of(rows),
        rows,
        [line for line, _ in numbered],
        stream.encoding,
        stream.repeated_headers,
        tuple(stream.short),
    )


def open_table(
    path: Path | str,
    what: str = "table",
    kinds: Sequence[str] = KINDS,
    wanted: Sequence[str] = (),
) -> Stream:
    """Like `read_table`, but reads rows one by one; from parquet, only the columns in `wanted`.

    If parquet has none of `wanted`, all columns are read. The rows raise the errors of
    `read_table`.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    expected = f"a {what} as {', '.join(kinds)}"
    if suffix not in kinds:
        if path.is_dir():
            raise DataError(f"{path}: is a folder; expected {expected}")
        if not suffix and not path.exists():
            raise DataError(missing(path, expected))
        raise DataError(f"{path}: unknown format {suffix!r}; a {what} is {', '.join(kinds)}")
    if suffix in (".parquet", ".pq"):
        return _parquet(path, what, expected, wanted)
    if suffix == ".json":
        return Stream(path, (), _objects(path, read_json(path)))
    contents = read_text(path, what, expected)
    read = _csv if suffix in (".csv", ".tsv") else _json_lines
    stream = read(path, contents.text, what)
    stream.encoding = contents.encoding
    return stream


def table_of(path: Path, rows: list[Cells]) -> Table:
    """A table of rows that were read from `path` in another way; its lines are row numbers."""
    return Table(path, columns_of(rows), rows, list(range(1, len(rows) + 1)))


def columns_of(rows: Sequence[Cells]) -> tuple[str, ...]:
    """The names of all columns, in order of first appearance."""
    return tuple(dict.fromkeys(str(name) for row in rows for name in row))


def cell(row: Cells, column: str | None) -> str:
    """The text of a cell, empty if there is none."""
    value = row.get(column) if column else None
    return "" if value is None else str(value)


def _csv(path: Path, text: str, what: str) -> Stream:
    lines = io.StringIO(text, newline="")
    skipped, delimiter, header, first = _preamble(lines, path.suffix.lower())
    reader = csv.reader(
        itertools.chain([first] if first else [], lines),
        delimiter=delimiter,
        strict=True,
        skipinitialspace=bool(header),
    )
    with readable(path, what, ""):
        columns = tuple(header or _header(_next_row(reader) or []))
    stream = Stream(path, columns, iter(()))
    stream.rows = _csv_rows(stream, reader, skipped, what)
    return stream


def _csv_rows(stream: Stream, reader: Any, skipped: int, what: str) -> Iterator[tuple[int, Cells]]:
    header, before = list(stream.columns), reader.line_num
    with readable(stream.path, what, ""):
        while (cells := _next_row(reader)) is not None:
            line, before = skipped + before + 1, reader.line_num
            while len(cells) > len(header) and not cells[-1].strip():
                cells.pop()
            if not any(cell.strip() for cell in cells):
                continue
            if _header(cells) == header:
                stream.repeated_headers += 1
                continue
            if len(cells) > len(header):
                raise DataError(
                    f"{stream.path}, line {line}: {len(cells)} cells, but the header has "
                    f"{len(header)}; a caption with a comma needs quotes"
                )
            if len(cells) < len(header):
                stream.short.append(line)
                cells += [""] * (len(header) - len(cells))
            yield line, dict(zip(header, cells, strict=True))


def _next_row(reader: Iterator[list[str]]) -> list[str] | None:
    """The next row, with cells of any length; None at the end."""
    with _long_cells():
        return next(reader, None)


@contextmanager
def _long_cells() -> Generator[None]:
    """Raises the csv module's process-wide limit, and restores it afterwards."""
    with _csv_limit:
        before = csv.field_size_limit(_CELL_LIMIT)
        try:
            yield
        finally:
            csv.field_size_limit(before)


def _preamble(lines: io.StringIO, suffix: str) -> tuple[int, str, list[str], str]:
    """What comes before the data: (lines skipped, delimiter, header, first line of the table).

    AudioSet's segment lists hold their header in a comment: # YTID, start_seconds, ... Then the
    header is not empty and the first line is a row.
    """
    skipped, last, line = 0, "", lines.readline()
    while line and not line.strip():
        skipped, line = skipped + 1, lines.readline()
    if match := _EXCEL.fullmatch(line):
        return skipped + 1, match[1], [], lines.readline()
    while line.startswith("#") and line[1:2] not in DELIMITERS:
        skipped, last, line = skipped + 1, line, lines.readline()
    named = last.lstrip("# ").strip()
    if named.upper().startswith("YTID"):
        return skipped, ",", _header(named.split(",")), line
    return skipped, _delimiter(line, suffix), [], line


def _delimiter(line: str, suffix: str) -> str:
    """The most frequent delimiter outside quotes in the header; in a .tsv, tabs if it has any."""
    bare = _QUOTED.sub("", line)
    if suffix == ".tsv" and ("\t" in bare or not any(mark in bare for mark in DELIMITERS)):
        return "\t"
    return max(DELIMITERS, key=bare.count)


def _header(cells: Sequence[str]) -> list[str]:
    return [
        key_of(cell.strip()) or f"column {number}" for number, cell in enumerate(cells, start=1)
    ]


def _json_lines(path: Path, text: str, what: str) -> Stream:
    return Stream(path, (), _json_rows(path, text))


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, Cells]]:
    # Only \n ends a line: JSON text may contain other Unicode line separators.
    for number, line in enumerate(io.StringIO(text, newline="\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            message = getattr(error, "msg", error)
            raise DataError(f"{path}, line {number}: not JSON ({message})") from None
        yield number, _object(path, number, row)


def _objects(path: Path, content: Any) -> Iterator[tuple[int, Cells]]:
    if is_object(content):
        content = content.get("data")
    if not is_list(content):
        raise DataError(f"{path}: expected a list of objects, or an object with a list 'data'")
    for number, row in enumerate(content, start=1):
        yield number, _object(path, number, row)


def _object(path: Path, number: int, row: object) -> Cells:
    if not is_object(row):
        raise DataError(f"{path}, line {number}: expected an object, got {json.dumps(row)[:60]}")
    return row


def _parquet(path: Path, what: str, expected: str, wanted: Sequence[str]) -> Stream:
    arrow, parquet = need_parquet(path)
    with readable(path, what, expected), _arrow_errors(arrow, path):
        file = parquet.ParquetFile(path)
        names = tuple(file.schema_arrow.names)
    kept = tuple(name for name in names if name in wanted) or names

    def rows() -> Iterator[tuple[int, Cells]]:
        numbers = itertools.count(1)
        with readable(path, what, expected), _arrow_errors(arrow, path):
            for batch in file.iter_batches(columns=list(kept)):
                yield from ((next(numbers), row) for row in batch.to_pylist())

    return Stream(path, kept, rows())


@contextmanager
def _arrow_errors(arrow: ModuleType, path: Path) -> Generator[None]:
    try:
        yield
    except arrow.ArrowException as error:
        raise DataError(f"{path}: not a readable parquet file ({one_line(error)})") from None
