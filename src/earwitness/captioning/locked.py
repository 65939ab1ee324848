"""Result files that only one process at a time appends to: locked first, then read or emptied."""

import errno
import os
import stat
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from earwitness.errors import DataError


def need_regular(path: Path) -> None:
    """Raises DataError if `path` is a folder, a device or a pipe, or cannot be inspected."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise cannot_write(path, error) from None
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "folder", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}
        kind = kinds.get(stat.S_IFMT(mode), "device")
        raise DataError(f"{path}: is a {kind}; expected a file name")


def cannot_write(path: Path, error: OSError) -> DataError:
    """The error for a file that cannot be written."""
    return DataError(f"{path}: cannot be written ({error.strerror or error})")


def is_full(error: BaseException | None) -> bool:
    """Whether the disk is full or failing, so that no other file could be written either."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
    return isinstance(error, OSError) and error.errno in full


class LockedFile:
    """A file that is appended to under a lock, which is held at most until the process ends."""

    def __init__(self, path: Path) -> None:
        """Creates the file if it does not exist; leaves its content unchanged.

        Raises:
            DataError: the file cannot be written, is not a regular file, or is in use.
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
        """Appends all of `contents`, on disk when this returns; on an error, none of it.

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
        """Releases the lock; `remove` deletes the file first."""
        if remove:
            self.path.unlink(missing_ok=True)
        self._file.close()


def _opened(path: Path) -> FileIO:
    """The file at `path`, locked. Raises OSError, and DataError if it is in use."""
    while True:
        # Unbuffered: a write that fails on a full disk is not retried when the file is closed.
        file = path.open("a+b", buffering=0)
        try:
            _lock(file.fileno(), path)
        except DataError:
            file.close()
            raise
        # The run that held the lock may have deleted the file in the meantime.
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
