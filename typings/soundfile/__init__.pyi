"""The part of soundfile that this repository uses; the package itself has no types."""

from os import PathLike
from types import TracebackType
from typing import Protocol, Self

import numpy as np

__libsndfile_version__: str

class _Bytes(Protocol):
    def read(self, size: int, /) -> bytes: ...
    def seek(self, offset: int, whence: int, /) -> int: ...
    def tell(self) -> int: ...

_File = str | bytes | PathLike[str] | _Bytes

class SoundFileError(Exception): ...

class LibsndfileError(SoundFileError):
    code: int

class SoundFile:
    def __init__(self, file: _File) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    @property
    def channels(self) -> int: ...
    @property
    def extra_info(self) -> str: ...
    @property
    def format(self) -> str: ...
    @property
    def frames(self) -> int: ...
    @property
    def samplerate(self) -> int: ...
    @property
    def subtype(self) -> str: ...
    def read(self, frames: int = ..., dtype: str = ..., always_2d: bool = ...) -> np.ndarray: ...

def read(file: _File, *, dtype: str = ..., always_2d: bool = ...) -> tuple[np.ndarray, int]: ...
def write(
    file: _File,
    data: np.ndarray,
    samplerate: int,
    subtype: str | None = ...,
    *,
    format: str | None = ...,
) -> None: ...
