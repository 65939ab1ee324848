"""Files that are written completely or not at all."""

import os
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from earwitness.errors import ConfigError, EarwitnessError


@contextmanager
def replacing(
    path: Path,
    failure: type[EarwitnessError] = ConfigError,
    *,
    make_folder: bool = True,
    durable: bool = True,
) -> Generator[BinaryIO]:
    """A draft that replaces `path` once it is complete and on disk; it is deleted on an error.

    A link is followed: the file that it points to is replaced. A device or a pipe, which cannot be
    replaced, is written to directly. `durable=False` does not wait for the disk: for caches, which
    can be rebuilt after a power failure.

    Raises:
        EarwitnessError: the file cannot be written; its class is `failure`.
    """
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            with path.open("wb") as file:
                yield file
            return
        with _draft(path, make_folder) as draft, draft.open("wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        raise failure(f"{path}: cannot be written ({error.strerror or error})") from None


@contextmanager
def replacing_path(
    path: Path, failure: type[EarwitnessError] = ConfigError, *, make_folder: bool = True
) -> Generator[Path]:
    """Like `replacing`, for writers that need a path instead of an open file."""
    try:
        with _draft(path, make_folder) as draft:
            yield draft
            with draft.open("rb+") as file:
                os.fsync(file.fileno())
    except OSError as error:
        raise failure(f"{path}: cannot be written ({error.strerror or error})") from None


def write_text(
    path: Path,
    text: str,
    failure: type[EarwitnessError] = ConfigError,
    *,
    make_folder: bool = True,
) -> None:
    """Writes `text` as UTF-8, keeping line endings. Raises EarwitnessError, as `replacing`.

    File names that are not UTF-8 (surrogate escapes) are written as their original bytes.
    """
    with replacing(path, failure, make_folder=make_folder) as file:
        file.write(text.encode("utf-8", "surrogateescape"))


@contextmanager
def _draft(path: Path, make_folder: bool) -> Generator[Path]:
    """A temporary path next to `path`, moved onto it at the end unless there is an error."""
    path = Path(os.path.realpath(path))
    if make_folder:
        path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays: some writers choose the format by it. Long names leave no room for the rest.
    draft = path.with_name(f".{uuid.uuid4().hex[:12]}.new{path.suffix[:20]}")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
