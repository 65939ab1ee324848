"""The three standard streams where one of them is closed, full, or has lost its reader."""

import os
import sys
from contextlib import suppress

from earwitness.io.names import for_terminal


def open_closed() -> None:
    """Puts something in the place of each standard stream that was closed when Python began.

    Otherwise the next file to be opened would get its number, and with it what libraries print.
    What is printed to a closed standard output fails; a closed stderr swallows what it gets.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is taken: this one. It can be read from, not written to.
            os.open(os.devnull, os.O_RDWR if number == 2 else os.O_RDONLY)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def fail(sentence: str) -> None:
    """Prints `sentence` on stderr as one line, and drops what standard output could not take."""
    with suppress(OSError):
        print(for_terminal(f"earwitness: {sentence}"), file=sys.stderr, flush=True)
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            stream.flush()
        except (OSError, ValueError):
            # Python would try once more at its end, and print about it.
            _discard(number)


def reason(error: OSError) -> str:
    """An operating system's error as a sentence: the file where there is one, and what happened."""
    what = error.strerror or str(error)
    return f"{os.fsdecode(error.filename)}: {what}" if _named(error) else what


def _named(error: OSError) -> bool:
    return isinstance(error.filename, str | bytes | os.PathLike)


def _discard(number: int) -> None:
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, number)
        os.close(nowhere)
