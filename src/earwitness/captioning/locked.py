"""Files of results that one process at a time appends to: locked first, then read or emptied."""

import errno
import os
import stat
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from earwitness.errors import DataError


def need_regular(path: Path) -> None:
    """Raises DataError where `path` is a folder, a device or a pipe, or cannot be looked at."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise cannot_write(path, error) from None
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "folder", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}
        kind = kinds.get(stat.S_IFMT(mode), "device")
        raise DataError(f"{path}: is a {kind}; expected the name of a file")


def cannot_write(path: Path, error: OSError) -> DataError:
    """The one sentence on a file that cannot be written."""
    return DataError(f"{path}: cannot be written ({error.strerror or error})")


def is_full(error: BaseException | None) -> bool:
    """Whether the disk is full or broken, so that no other file could be written either."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
    return isinstance(error, OSError) and error.errno in full


class LockedFile:
    """A file that is appended to under a lock, which ends with the process at the latest."""

    def __init__(self, path: Path) -> None:
        """Creates the file where there is none; its content is left alone.

        Raises:
            DataError: the file cannot be written, is not a regular file, or another run has it.
        """
        need_regular(path)
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _opened(path)
        except OSError as error:
            raise cannot_write(path, error) from None

    def reader(self) -> BinaryIO:
        """The same file, open for reading from its start."""
        file = open(os.dup(self._file.fileno()), "rb")  # noqa: SIM115
        file.seek(0)
        return file

    def append(self, contents: bytes) -> None:
        """Adds `contents`, which are on disk when this returns; all of them or, on an error, none.

        Raises DataError.
        """
        start = self.size
        try:
            left = memoryview(contents)
            while left:
                left = left[self._file.write(left) or 0 :]
            os.fsync(self._file.fileno())
        except OSError as error:
            self.cut(start)
            raise cannot_write(self.path, error) from None

    def cut(self, size: int) -> None:
        """Keeps the first `size` bytes. Raises DataError."""
        try:
            self._file.truncate(size)
        except OSError as error:
            raise cannot_write(self.path, error) from None

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return os.fstat(self._file.fileno()).st_size

    def close(self, remove: bool = False) -> None:
        """Releases the lock; `remove` takes the file away first."""
        if remove:
            self.path.unlink(missing_ok=True)
        self._file.close()


def _opened(path: Path) -> FileIO:
    """The file under `path`, locked. Raises OSError, and DataError where it is in use."""
    while True:
        # Unbuffered: what a full disk refuses is not tried again when the file is closed.
        file = path.open("a+b", buffering=0)
        try:
            _lock(file.fileno(), path)
        except DataError:
            file.close()
            raise
        # The run that had the lock may have taken the file away meanwhile.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()


def _lock(number: int, path: Path) -> None:
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise DataError(
            f"{path}: another run is writing to it; wait until it ends, or use --shard i/n"
        ) from None
