"""Digests of files."""

import hashlib
from pathlib import Path


def sha256_of(path: Path | str) -> str:
    """The SHA-256 of a file in hexadecimal, read block by block. Raises OSError."""
    code = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            code.update(block)
    return code.hexdigest()
