"""Digests of files."""

import hashlib
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable


@runtime_checkable
class Reads(Protocol):
    """An open binary file."""

    def read(self, size: int = -1, /) -> bytes: ...


@runtime_checkable
class Opens(Protocol):
    """A path, or a sound inside a shard."""

    def open(self, mode: Literal["rb"], /) -> AbstractContextManager[Reads]: ...


def sha256_of(file: Path | str | Opens) -> str:
    """The SHA-256 of a file in hexadecimal, read block by block. Raises OSError."""
    opens = Path(file) if isinstance(file, str) else file
    code = hashlib.sha256()
    with opens.open("rb") as stream:
        while block := stream.read(1 << 20):
            code.update(block)
    return code.hexdigest()
