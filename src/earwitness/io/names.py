"""File names in the forms that systems write them: one key for all, and the one that exists."""

import os
import unicodedata
from contextlib import suppress
from pathlib import Path


def key_of(name: str) -> str:
    """`name` in Unicode's composed form (NFC), so that names from macOS match those from Linux."""
    return unicodedata.normalize("NFC", name)


def on_disk(path: Path) -> Path:
    """`path`, or the form of its name (NFC, NFD, Windows-1252 bytes) that exists instead."""
    text = str(path)
    if text.isascii() or path.exists():
        return path
    forms = [unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)]
    with suppress(UnicodeEncodeError):
        forms.append(os.fsdecode(forms[0].encode("cp1252")))
    return next((found for form in forms if (found := Path(form)).exists()), path)
