"""Text files in any encoding that spreadsheets write, and the errors for unreadable ones."""

import csv
import json
import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from earwitness.errors import DataError, one_line

Encoding = Literal["utf-8", "utf-16", "utf-32", "cp1252"]

_BOMS: tuple[tuple[bytes, Encoding], ...] = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_PROBE = 4096
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(?=[^/])")


@dataclass(frozen=True)
class TextFile:
    """The text of a file with its line endings, without a byte order mark, and its encoding."""

    text: str
    encoding: Encoding


def decode(contents: bytes) -> TextFile:
    """The text in `contents`: UTF-8, UTF-16, UTF-32 (with or without a BOM), else Windows-1252.

    Raises:
        ValueError: the bytes are not text.
    """
    for mark, encoding in _BOMS:
        if contents.startswith(mark):
            return TextFile(_without_nul(contents.decode(encoding)), encoding)
    if (order := _utf16_order(contents)) is not None:
        return TextFile(_without_nul(contents.decode(order)), "utf-16")
    try:
        return TextFile(_without_nul(contents.decode("utf-8-sig")), "utf-8")
    except UnicodeDecodeError:
        pass
    # A UTF-8 list may hold file names that are not UTF-8; most other characters are then intact.
    names = contents.decode("utf-8-sig", "surrogateescape")
    broken = sum("\udc80" <= sign <= "\udcff" for sign in names)
    if sum(sign > "\x7f" for sign in names) > 2 * broken:
        return TextFile(_without_nul(names), "utf-8")
    try:
        return TextFile(_without_nul(contents.decode("cp1252")), "cp1252")
    except UnicodeDecodeError:
        # Latin-1 for the five bytes that Windows-1252 does not define.
        return TextFile(_without_nul(contents.decode("latin-1")), "cp1252")


def read_text(path: Path, what: str = "file", expected: str = "a text file") -> TextFile:
    """The text in `path`, as `decode` finds it.

    Raises:
        DataError: the file is missing, a folder, a URL, or not text.
    """
    with readable(path, what, expected):
        return decode(path.read_bytes())


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises DataError if it is missing or damaged."""
    text = read_text(path, "JSON file", "a JSON file").text
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"{path}: not readable as JSON ({one_line(error)})") from None


@contextmanager
def readable(path: Path, what: str, expected: str) -> Generator[None]:
    """Turns errors while reading `path` into one sentence.

    Raises:
        DataError: instead of OSError, ValueError or csv.Error.
    """
    try:
        yield
    except FileNotFoundError:
        raise DataError(missing(path, expected)) from None
    except IsADirectoryError:
        raise DataError(f"{path}: is a folder; expected {expected}") from None
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise DataError(f"{path}: not a readable {what} ({reason})") from None


def missing(path: Path, expected: str) -> str:
    """Why there is nothing at `path`: it is a URL, its folder is missing, or the file itself is."""
    if (url := url_in(str(path))) is not None:
        return f"{url}: is a URL; expected a file on this computer"
    if not path.parent.is_dir():
        return f"{path}: there is no folder {path.parent}; expected {expected}"
    return f"{path}: no such file; expected {expected}"


def url_in(name: str) -> str | None:
    """`name` as a URL, or None if it is not one; a Path has lost one of the two slashes."""
    match = _URL.match(name)
    return f"{match[1]}://{name[match.end() :]}" if match else None


def _utf16_order(contents: bytes) -> Literal["utf-16-le", "utf-16-be"] | None:
    """The byte order of UTF-16 without a BOM, in which every other byte of Latin text is zero."""
    probe = contents[:_PROBE]
    if len(contents) % 2 or b"\0" not in probe:
        return None
    first, second = probe[0::2].count(0), probe[1::2].count(0)
    half = len(probe) // 4
    if second > half and not first:
        return "utf-16-le"
    return "utf-16-be" if first > half and not second else None


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("it is not text: it holds zero bytes")
    return text
