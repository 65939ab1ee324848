"""The progress bar of a training run, on stderr."""

import os
from collections.abc import Iterable
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    track,
)

Item = TypeVar("Item")


class TrainingBar:
    """Epoch, batches, running means of the losses, clips per second and time left."""

    def __init__(self, epochs: int, batches: int, epoch: int, done: int, visible: bool) -> None:
        self.console = Console(stderr=True, quiet=not visible)
        self.batches, self.clips = batches, 0
        self.means: dict[str, float] = {}
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[losses]}"),
            console=self.console,
            disable=not visible,
        )
        self.task = self.bar.add_task(
            "training", total=epochs * batches, completed=epoch * batches + done, rate="", losses=""
        )

    def __enter__(self) -> "TrainingBar":
        self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.stop()

    def advance(self, losses: dict[str, float], clips: int) -> None:
        """One step of `clips` clips is done, those of all processes together."""
        self.clips += clips
        for name, value in losses.items():
            self.means[name] = 0.98 * self.means.get(name, value) + 0.02 * value
        self.bar.update(
            self.task,
            advance=1,
            rate=f"{self.clips / max(1e-9, self.bar.tasks[0].elapsed or 1e-9):.1f} clips/s",
            losses="  ".join(f"{name} {mean:.3f}" for name, mean in self.means.items()),
        )

    def say(self, text: str) -> None:
        """Shows what is going on between batches."""
        self.bar.update(self.task, losses=text)

    def scores(self, epoch: int, scores: dict[str, float]) -> None:
        """Prints the validation scores of an epoch above the bar."""
        line = "  ".join(f"{name} {value:.4f}" for name, value in scores.items())
        self.console.print(f"epoch {epoch}: {line}", highlight=False)


def tracked(
    items: Iterable[Item], description: str, *, total: int | None = None, disable: bool = False
) -> Iterable[Item]:
    """The items, with a bar on stderr that says how many are done."""
    console = Console(stderr=True)
    return track(items, description, total=total, console=console, disable=disable)


def note(text: str) -> None:
    """Prints one line on stderr, from the main process only."""
    if int(os.environ.get("RANK", "0")) == 0:
        Console(stderr=True).print(text, highlight=False, markup=False, soft_wrap=True)
