"""Progress and problems of a captioning job, on stderr."""

import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from earwitness.io.names import for_terminal

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

_EVERY_SECONDS = 30.0
"""between two progress lines if stderr is not a terminal"""


class Progress:
    """A bar on a terminal, a line every half minute elsewhere; errors always."""

    def __init__(self, quiet: bool, files: int, prints: bool, length: float | None = None) -> None:
        """`files` in total; `prints`: captions go to standard output; `length` in seconds is given
        for a single long sound, whose progress is then shown in time.
        """
        self._quiet = quiet or (files == 1 and prints and sys.stdout.isatty() and not length)
        # Captions of several files on the same terminal already show the progress.
        shown = prints and sys.stdout.isatty() and not length
        self._bar_wanted = sys.stderr.isatty() and not shown
        self._many = files > 1
        self._length = length
        self._total = self._finished = self._failed = 0
        self._seconds = 0.0
        self._start = self._last = time.monotonic()
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    def begin(self, files: int, before: int) -> None:
        """`files` are to be captioned; `before` were captioned by earlier runs."""
        self._total = files
        self._start = self._last = time.monotonic()
        if before:
            rest = f"continuing with {files}" if files else "nothing left to do"
            self._note(f"{before} of {before + files} already captioned; {rest}")
        if files and self._bar_wanted and not self._quiet:
            self._bar = _bar()
            total = self._length or files
            self._task = self._bar.add_task(
                "loading the model", total=total, count=self._count(), speed=""
            )
            self._bar.start()

    def ready(self) -> None:
        """The model is loaded: start timing."""
        self._start = time.monotonic()

    def sound(self, seconds: float) -> None:
        """`seconds` of sound passed through the model or a gate."""
        self._seconds += seconds
        self._show()

    def before_output(self) -> None:
        """The caption of a single sound may follow on the same terminal: remove the bar."""
        if self._length:
            self.close()

    def done(self, files: int, failed: int) -> None:
        """`files` more are finished, `failed` of them without a caption."""
        self._finished += files
        self._failed += failed
        self._show()

    def problem(self, sentence: str) -> None:
        """A file that failed, and why."""
        self.say(sentence, always=True)

    def say(self, sentence: str, always: bool = False) -> None:
        """One line on stderr, above the bar."""
        if self._quiet and not always and self._many:
            return
        line = for_terminal(f"earwitness: {sentence}")
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
            return
        # Do not lose captions because stderr goes to a full disk.
        with suppress(OSError):
            print(line, file=sys.stderr, flush=True)

    def stopped(self) -> None:
        """The user interrupted the job."""
        self.close()
        self.say(
            f"stopped with {self._finished} of {self._total} done; if the job writes a file, the "
            "same command continues it",
            always=True,
        )

    def end(self, failures: Path | None, output: Path | None) -> None:
        """A closing line for a job of several files."""
        self.close()
        good = self._finished - self._failed
        if self._failed and self._many:
            where = f"; see {failures}" if failures else ""
            self.say(f"{self._failed} of {self._total} failed{where}", always=True)
        if self._many and good:
            self._note(f"{good} captioned, {self._speed()}")
        if output is not None and good:
            self._note(f"written: {output}")

    def close(self) -> None:
        """Removes the bar from the screen."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _note(self, sentence: str) -> None:
        if not self._quiet:
            self.say(sentence)

    def _show(self) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task,
                completed=self._seconds if self._length else self._finished,
                description="captioning",
                count=self._count(),
                speed=self._pace(),
            )
        elif not self._quiet and time.monotonic() - self._last >= _EVERY_SECONDS:
            self._last = time.monotonic()
            counted = f"{self._count()} of sound, {self._pace()}"
            if not self._length:
                counted = f"{self._count()} files, {self._speed()}"
            self._note(f"{counted}{self._left()}")

    def _count(self) -> str:
        """Progress as "done of total": time of the one long sound, or else files."""
        if self._length:
            done = min(self._seconds, self._length)
            return f"{_duration(done)} of {_duration(self._length)}"
        return f"{self._finished}/{self._total}"

    def _speed(self) -> str:
        return f"{_duration(self._seconds)} of sound, {self._pace()}"

    def _pace(self) -> str:
        passed = max(1e-3, time.monotonic() - self._start)
        pace = f"{self._seconds / passed:.0f}x real time"
        per_second = (self._finished - self._failed) / passed
        return f"{per_second:.1f} clips/s, {pace}" if self._many else pace

    def _left(self) -> str:
        passed = time.monotonic() - self._start
        done, total = self._finished, self._total
        if self._length:
            done, total = self._seconds, max(self._seconds, self._length)
        return f", {_duration(passed / done * (total - done))} left" if done else ""


def _bar() -> "Bar":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[count]}"),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(compact=True),
        TextColumn("left"),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02}"
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
