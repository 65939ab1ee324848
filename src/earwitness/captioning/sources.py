"""Files, folders, globs, shards, manifests and standard input as one list of sources."""

import glob
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

from earwitness.audio import AudioSource
from earwitness.errors import ConfigError, DataError, EarwitnessError, unexpected
from earwitness.io.names import key_of, on_disk
from earwitness.io.suffixes import SOUND_SUFFIXES
from earwitness.io.tables import KINDS, Cells, open_table
from earwitness.io.text_files import read_text, readable, url_in

SHARDS = frozenset((".tar", ".parquet"))
"""extensions of files that hold many sounds; in folders, parquet files only with `include`"""

COLUMNS = ("file", "path", "audio", "audio_path", "file_name", "filename", "fname")
"""columns of a manifest that may name the sounds; the first one present is used"""


@dataclass(frozen=True)
class Source:
    """One sound to caption: its name in the results, and what `audio` reads.

    `problem` is a sentence on why there is nothing to read; it becomes the error of this one
    source.
    """

    name: str
    audio: AudioSource
    problem: str | None = None

    def again(self) -> "Source":
        """The same sound from its start: those in shards and remote files can be read only once."""
        opened = None if isinstance(self.audio, Path) else getattr(self.audio, "open", None)
        return self if opened is None else replace(self, audio=opened())


def find(
    arguments: Sequence[str], include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> list[Source]:
    """The sounds in files, folders, globs, shards and `-` (one sound on standard input).

    Folders give their files with a known extension and the sounds in their tars, or the files that
    match one of `include`; names with a leading dot are skipped. A shard (a tar, or a parquet file
    with a column `bytes`) gives `shard.tar#key.flac` or `shard.parquet#row`. `exclude` drops files
    and whole folders. Patterns are shell patterns, matched against the name and against the path
    below the folder. Each file is taken once, in the order of the arguments, sorted within a
    folder.
    """
    found: dict[str, Source] = {}
    for argument in arguments:
        for source in _expanded(argument, include, exclude):
            found.setdefault(os.path.normpath(source.name), source)
    return list(found.values())


def read_manifest(
    path: str, column: str | None = None, opened: Callable[[str, Cells], Source] | None = None
) -> list[Source]:
    """The sounds named in `column` of a table (see `io.tables`), or in lines of text.

    `-` reads one path per line from standard input. Paths are relative to the manifest's folder
    (for `-`, the working directory). Each file is taken once, named as in the manifest;
    `shard.tar#key.flac` and `shard.parquet#row` are sounds in shards. `opened` turns a name and its
    row into a sound; None: `listed`, for files on this computer.

    Raises:
        DataError: the manifest cannot be read, has no such column, or has an empty cell.
    """
    folder = Path() if path == "-" else Path(path).parent
    opened = opened or partial(listed, folder)
    found: dict[str, Source] = {}
    for name, row in _names(path, column):
        if key_of(name) not in found:
            found[key_of(name)] = opened(name, row)
    if not found:
        raise DataError(f"{path}: names no file; expected a row or line per sound")
    return list(found.values())


def shard(sources: Sequence[Source], part: str) -> list[Source]:
    """Every n-th source from the i-th on, for `part` = "i/n". Raises ConfigError."""
    i, n = parse_shard(part)
    return list(sources[i - 1 :: n])


def parse_shard(part: str) -> tuple[int, int]:
    """(i, n) of "i/n". Raises ConfigError unless 1 <= i <= n."""
    first, slash, second = part.partition("/")
    if slash and first.isdecimal() and second.isdecimal() and 1 <= int(first) <= int(second):
        return int(first), int(second)
    raise ConfigError(f"--shard {part}: expected i/n with i from 1 to n, such as 3/8")


def listed(folder: Path, name: str, row: Cells) -> Source:
    """The sound that a manifest names in `row`: a file, or a sound in a shard."""
    from earwitness.data.prepare.packed import packed_at

    if (url := url_in(name)) is not None:
        return Source(name, name, f"{url} is a URL; expected a file on this computer")
    try:
        packed = packed_at(folder, name, row)
    except DataError as error:
        return Source(name, folder / name, str(error))
    return Source(name, packed.open() if packed else on_disk(folder / name))


def _in_file(path: str) -> Iterator[Source]:
    """The file itself, or the sounds in a shard; an unreadable shard is a single problem."""
    if Path(path).suffix not in SHARDS:
        yield Source(path, path)
        return
    from earwitness.data.prepare.packed import packed_in

    try:
        found = packed_in(Path(path))
    except EarwitnessError as error:
        yield Source(path, path, str(error))
        return
    except Exception as error:
        yield Source(path, path, str(unexpected(path, error)))
        return
    if path.endswith(".tar"):
        found = [p for p in found if Path(p.member).suffix.lower() in SOUND_SUFFIXES]
    if not found:
        yield Source(path, path, f"the shard {path!r} holds no sound")
    yield from (Source(packed.name, packed.open()) for packed in found)


def _expanded(argument: str, include: Sequence[str], exclude: Sequence[str]) -> Iterator[Source]:
    if argument == "-":
        if sys.stdin is None:
            yield Source("-", b"", "standard input is closed; expected a sound")
        else:
            yield Source("-", sys.stdin.buffer)
        return
    paths = [argument]
    if not os.path.lexists(argument) and glob.has_magic(argument):
        paths = sorted(glob.glob(argument, recursive=True))
        if not paths:
            yield Source(argument, argument, f"no file matches {argument!r}; expected a sound")
    for path in paths:
        if os.path.isdir(path):
            yield from _in_folder(path, include, exclude)
        elif path.endswith(os.sep) and not os.path.lexists(path):
            yield Source(path, path, f"the folder {path!r} does not exist")
        elif not matches(path, exclude):
            yield from _in_file(path)


def _in_folder(folder: str, include: Sequence[str], exclude: Sequence[str]) -> Iterator[Source]:
    any_found = False
    for path in _walk(folder, exclude):
        below = os.path.relpath(path, folder)
        suffix = Path(path).suffix
        known = suffix == ".tar" or suffix.lower() in SOUND_SUFFIXES
        if matches(below, include) if include else known:
            any_found = True
            yield from _in_file(path)
    if not any_found:
        looked_for = f"matching {', '.join(include)}" if include else "with a known extension"
        yield Source(
            folder, folder, f"the folder {folder!r} holds no sound {looked_for} (see --include)"
        )


def _walk(folder: str, exclude: Sequence[str]) -> Iterator[str]:
    """All files below `folder` in sorted order, without hidden and excluded ones."""
    for place, folders, files in os.walk(folder):
        below = os.path.relpath(place, folder)

        def kept(name: str, below: str = below) -> bool:
            path = os.path.normpath(os.path.join(below, name))
            return not name.startswith(".") and not matches(path, exclude)

        folders[:] = sorted(name for name in folders if kept(name))
        yield from (os.path.join(place, name) for name in sorted(files) if kept(name))


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Whether one of the shell patterns matches a path, or its name alone."""
    path = Path(path).as_posix()
    return any(
        fnmatch(path, pattern.rstrip("/")) or fnmatch(path.rpartition("/")[2], pattern.rstrip("/"))
        for pattern in patterns
    )


def _names(path: str, column: str | None) -> Iterator[tuple[str, Cells]]:
    """Each name in the manifest, and its row; an empty row for lines of text."""
    if path == "-":
        yield from ((line, {}) for line in _lines(_standard_input()))
        return
    expected = "CSV, TSV, JSONL, JSON, parquet or a text file of paths"
    if Path(path).suffix.lower() not in KINDS:
        text = read_text(Path(path), "manifest", expected).text
        yield from ((line, {}) for line in _lines(io.StringIO(text)))
        return
    stream = open_table(path, "manifest", wanted=[column] if column else COLUMNS)
    yield from _cells(path, stream.rows, column)


def _standard_input() -> Iterator[str]:
    """The lines of standard input; names that are not UTF-8 keep their bytes. Raises DataError."""
    if sys.stdin is None:
        raise DataError("standard input is closed; expected one path per line")
    file: object = sys.stdin
    if isinstance(file, io.TextIOWrapper):
        file.reconfigure(encoding="utf-8-sig", errors="surrogateescape")
    with readable(Path("standard input"), "manifest", "one path per line"):
        yield from sys.stdin


def _lines(file: Iterable[str]) -> Iterator[str]:
    yield from (line.rstrip("\r\n") for line in file if line.strip())


def _cells(
    path: str, rows: Iterator[tuple[int, Cells]], column: str | None
) -> Iterator[tuple[str, Cells]]:
    name = column
    for number, (_, row) in enumerate(rows, start=1):
        if number == 1:
            name = column or next((c for c in COLUMNS if c in row), None)
        if name is None or name not in row:
            wanted = f"no column {column!r}" if column else f"none of {', '.join(COLUMNS)}"
            raise DataError(
                f"{path}: row {number} has {wanted}; its columns are {', '.join(map(str, row))} "
                "(choose one with --column)"
            )
        if not isinstance(row[name], str) or not row[name].strip():
            raise DataError(f"{path}: row {number} has no file name in column {name!r}")
        yield row[name], row
