"""Several processes that serve on one socket, and the one that restarts them when they die."""

import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing import connection, get_context, parent_process
from multiprocessing.process import BaseProcess
from types import FrameType

from earwitness.errors import EarwitnessError

Serve = Callable[[socket.socket], None]

_LOG = logging.getLogger("earwitness.serve")
_SHORT_SECONDS = 10.0
"""a worker that dies sooner than that would only die again"""


def run_workers(count: int, serve: Serve, listener: socket.socket) -> int:
    """Runs `serve` in `count` processes until SIGINT or SIGTERM; the exit status.

    A worker that dies is replaced. `serve` must be picklable. Signals are passed on: the first lets
    the workers finish what they accepted, a second one stops that.
    """
    with tempfile.TemporaryDirectory(prefix="earwitness-metrics-") as folder:
        # Read when prometheus_client is imported: workers then write their metrics into it.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        try:
            return _Workers(count, serve, listener).run()
        finally:
            del os.environ["PROMETHEUS_MULTIPROC_DIR"]


class _Workers:
    def __init__(self, count: int, serve: Serve, listener: socket.socket) -> None:
        self._serve, self._listener = serve, listener
        self._stopping, self._status = False, 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        self._started: dict[BaseProcess, float] = {}
        for _ in range(count):
            self._start()

    def run(self) -> int:
        """Watches over the workers until all have ended."""
        while self._started:
            connection.wait([process.sentinel for process in self._started], timeout=1.0)
            for process in [one for one in self._started if not one.is_alive()]:
                self._ended(process)
        return self._status

    def _start(self) -> None:
        process = get_context("spawn").Process(target=_work, args=(self._serve, self._listener))
        process.start()
        self._started[process] = time.monotonic()

    def _ended(self, process: BaseProcess) -> None:
        lived = time.monotonic() - self._started.pop(process)
        _forget_metrics(process.pid or 0)
        if self._stopping:
            return
        if lived < _SHORT_SECONDS:
            self._status = process.exitcode or 1
            self._stop()
            return
        _LOG.error("worker died", extra={"fields": {"status": process.exitcode}})
        self._start()

    def _stop(self, _signal: int = 0, _frame: FrameType | None = None) -> None:
        self._stopping = True
        for process in self._started:
            process.terminate()


def _work(serve: Serve, listener: socket.socket) -> None:
    # Ctrl-C goes to a whole group; here it comes through the parent alone, once.
    os.setpgrp()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        serve(listener)
    except EarwitnessError as error:
        print(f"earwitness: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _forget_metrics(process: int) -> None:
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(process)
