"""Java programs that keep running and answer line by line: each is started once per process.

METEOR's jar loads a paraphrase table for ten seconds before its first answer; a training run that
validates after each epoch pays for that only once.
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
"""marks the end of a queue of lines; a real line ends with a newline"""


class JavaServer:
    """A running program that prints one line per line that it reads."""

    def __init__(self, command: Sequence[str]) -> None:
        """Raises MetricNotRunError if the program does not start."""
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = start(command, self._errors)
        self._answers: SimpleQueue[str] = SimpleQueue()
        Thread(target=_read, args=(self._process, self._answers), daemon=True).start()

    @property
    def running(self) -> bool:
        """Whether it is still waiting for lines."""
        return self._process.poll() is None

    def ask(self, lines: Sequence[str], timeout: float) -> list[str]:
        """The answers to `lines`; fewer if the program ended without an error.

        Raises:
            MetricNotRunError: the program failed, or the answers took longer than `timeout`
                seconds and it was stopped.
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
        """Ends the program and its child processes."""
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
    # A program that has ended or was stopped does not read; `ask` reports why.
    with suppress(OSError, ValueError):
        process.stdin.writelines(lines)
        process.stdin.flush()


def ask_java(
    program: Path, arguments: Sequence[str], lines: Sequence[str], *, timeout: float
) -> list[str]:
    """The answers to `lines` by Java run with `arguments`; see `JavaServer.ask`.

    It is started on the first call and keeps running until this process ends.
    """
    # A forked process must not talk to its parent's server.
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
