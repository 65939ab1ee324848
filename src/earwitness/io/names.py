"""File names in the forms that systems use: one key for all forms, and the form that exists."""

import os
import re
import unicodedata
from contextlib import suppress
from pathlib import Path

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""control characters, Unicode line separators, and marks that change the writing direction"""
_NO_TEXT = re.compile("[\ud800-\udfff]")
_SHORT = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}


def on_one_line(text: str) -> str:
    """`text` with its control characters escaped, as in \\n and \\x1b; everything else, including
    bytes that are not UTF-8 (surrogate escapes), is unchanged.
    """
    return _CONTROL.sub(_escaped, text)


def for_terminal(text: str, kept: str = "") -> str:
    """`text` safe for a terminal: like `on_one_line`, with bytes that are not UTF-8 as \\xe9.

    The characters in `kept` are not changed.
    """
    text = _CONTROL.sub(lambda found: found[0] if found[0] in kept else _escaped(found), text)
    return readable_name(text)


def readable_name(name: str) -> str:
    """`name` as valid Unicode: each byte that is not UTF-8 becomes \\xe9, and so on."""
    return _NO_TEXT.sub(_escaped, name)


def is_text(name: str) -> bool:
    """Whether all bytes of a file name are UTF-8."""
    return _NO_TEXT.search(name) is None


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    if found[0] in _SHORT:
        return _SHORT[found[0]]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def key_of(name: str) -> str:
    """`name` in composed Unicode (NFC), so that names from macOS match those from Linux."""
    return unicodedata.normalize("NFC", name)


def on_disk(path: Path) -> Path:
    """`path`, or the form of its name (NFC, NFD, Windows-1252 bytes) that exists instead."""
    text = str(path)
    if text.isascii() or os.path.exists(path):
        return path
    forms = [unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)]
    for encoding in ("cp1252", "latin-1"):
        with suppress(UnicodeEncodeError):
            forms.append(os.fsdecode(forms[0].encode(encoding)))
    return next((found for form in forms if os.path.exists(found := Path(form))), path)
