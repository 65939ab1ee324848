"""Handles standard streams that are closed, full, or have lost their reader."""

import os
import sys
from contextlib import suppress

from earwitness.io.names import for_terminal


def open_closed() -> None:
    """Replaces each standard stream that was closed when Python started.

    Otherwise the next file to be opened would get its file descriptor, and so libraries' output.
    Printing to a closed standard output fails; output to a closed stderr is discarded.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # `open` takes the lowest free descriptor: this one. Only stderr is writable.
            os.open(os.devnull, os.O_RDWR if number == 2 else os.O_RDONLY)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def fail(sentence: str) -> None:
    """Prints `sentence` to stderr as one line, and discards output that could not be written."""
    with suppress(OSError):
        print(for_terminal(f"earwitness: {sentence}"), file=sys.stderr, flush=True)
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            stream.flush()
        except (OSError, ValueError):
            # Python would try again on exit, and print an error.
            _discard(number)


def reason(error: OSError) -> str:
    """An operating system's error as a sentence: the file, if there is one, and what happened."""
    what = error.strerror or str(error)
    return f"{os.fsdecode(error.filename)}: {what}" if _named(error) else what


def _named(error: OSError) -> bool:
    return isinstance(error.filename, str | bytes | os.PathLike)


def _discard(number: int) -> None:
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, number)
        os.close(nowhere)
