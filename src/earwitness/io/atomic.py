"""Files that are there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from earwitness.errors import ConfigError, EarwitnessError


@contextmanager
def replacing(path: Path, failure: type[EarwitnessError] = ConfigError) -> Iterator[BinaryIO]:
    """A draft that takes the place of `path` once it is complete and on disk; it vanishes on an
    error.

    Raises:
        EarwitnessError: the file cannot be written; it is a `failure`.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise failure(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        draft.unlink(missing_ok=True)
