"""Java programs that answer line by line and stay: each is started once per process.

METEOR's jar reads a table of paraphrases for ten seconds before its first answer; a training run
that validates after each epoch pays for that once.
"""

import atexit
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from subprocess import Popen
from threading import Lock, Thread

from earwitness.evaluation.java import failure, kill, start, too_slow

_END = ""
"""what a queue of lines holds when no more will come; a line ends with a newline"""


class JavaServer:
    """A running program that prints a line for each line that it reads."""

    def __init__(self, command: Sequence[str]) -> None:
        """Raises MetricNotRunError where the program does not start."""
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = start(command, self._errors)
        self._answers: SimpleQueue[str] = SimpleQueue()
        Thread(target=_read, args=(self._process, self._answers), daemon=True).start()

    @property
    def running(self) -> bool:
        """Whether it still waits for lines."""
        return self._process.poll() is None

    def ask(self, lines: Sequence[str], timeout: float) -> list[str]:
        """The answers to `lines`; fewer where the program ended without a fault.

        Raises:
            MetricNotRunError: the program failed, or the answers took longer than `timeout`
                seconds; it is stopped then.
        """
        Thread(target=_write, args=(self._process, lines), daemon=True).start()
        end = time.monotonic() + timeout
        found: list[str] = []
        try:
            while len(found) < len(lines):
                line = self._answers.get(timeout=max(0.0, end - time.monotonic()))
                if line == _END:
                    self._check_end()
                    break
                found += [line] if line.strip() else []
        except Empty:
            self.stop()
            raise too_slow(timeout) from None
        except BaseException:
            self.stop()
            raise
        return found

    def stop(self) -> None:
        """Ends the program and all that it started."""
        if self.running:
            kill(self._process)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            with suppress(OSError):
                if stream is not None:
                    stream.close()

    def _check_end(self) -> None:
        code = self._process.wait()
        if code:
            self._errors.seek(0)
            raise failure(code, self._errors.read())
        self.stop()


_SERVERS: dict[tuple[int, tuple[str, ...]], JavaServer] = {}
_LOCK = Lock()


def _read(process: "Popen[str]", answers: "SimpleQueue[str]") -> None:
    assert process.stdout is not None
    with suppress(OSError, ValueError):
        for line in process.stdout:
            answers.put(line)
    answers.put(_END)


def _write(process: "Popen[str]", lines: Sequence[str]) -> None:
    assert process.stdin is not None
    # A program that has ended or was stopped reads no more; `ask` says why.
    with suppress(OSError, ValueError):
        process.stdin.writelines(lines)
        process.stdin.flush()


def ask_java(
    program: Path, arguments: Sequence[str], lines: Sequence[str], *, timeout: float
) -> list[str]:
    """The answers of Java run on `arguments` to `lines`; see `JavaServer.ask`.

    It is started at the first call and waits for the next one until this process ends.
    """
    # A forked process must not talk to the server of its parent.
    key = (os.getpid(), (str(program), *arguments))
    with _LOCK:
        server = _SERVERS.get(key)
        if server is not None and not server.running:
            server.stop()
        if server is None or not server.running:
            server = _SERVERS[key] = JavaServer(key[1])
        return server.ask(lines, timeout)


@atexit.register
def _stop_all() -> None:
    for (process, _), server in _SERVERS.items():
        if process == os.getpid():
            server.stop()
