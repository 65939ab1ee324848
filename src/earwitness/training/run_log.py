"""The files of a training run: log.jsonl, trackers (TensorBoard, W&B), resumable checkpoints, best
and last weights. On several processes the main one writes; each adds its share of a checkpoint.
"""

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from earwitness.errors import ConfigError, TrainingError
from earwitness.io.atomic import write_text
from earwitness.training.distributed import DDPModel, FSDPModel
from earwitness.training.settings import Selection, Tracker

Save = Callable[[nn.Module, Path], None]


def check_trackers(trackers: tuple[Tracker, ...]) -> None:
    """Raises ConfigError if the library behind a tracker is not installed."""
    for name in trackers:
        if find_spec(name) is None:
            raise ConfigError(
                f"fit.trackers names '{name}', which is not installed: pip install {name}, "
                "or leave it out of fit.trackers"
            )


class RunLog:
    """What a run writes, and where it resumes after a stop. `step` counts weight updates.

    `settings` must be those the run was started with; a key that an older run does not name had its
    value in `defaults`.
    """

    def __init__(
        self,
        run: Path,
        select: Selection,
        settings: dict[str, Any],
        defaults: dict[str, Any],
        accelerator: Any,
        parallel: DDPModel | FSDPModel,
    ) -> None:
        self.run, self.select, self.settings, self.defaults = run, select, settings, defaults
        self.accelerator, self.parallel = accelerator, parallel
        self.step = 0
        self.best_scores: dict[str, float] = {}
        self.stale = 0
        """validations since the best one"""
        run.mkdir(parents=True, exist_ok=True)

    def resume(self, trackers: tuple[Tracker, ...]) -> tuple[int, int]:
        """(epoch, batches done in it) to resume from; rows of the log beyond that point are
        dropped.

        Raises:
            TrainingError: the run was started with other settings.
        """
        state, old = self.run / "checkpoint", self.run / "checkpoint.old"
        if not (state / "progress.json").is_file() and (old / "progress.json").is_file():
            state = old
        epoch, done = 0, 0
        if (state / "progress.json").is_file():
            progress = json.loads((state / "progress.json").read_text(encoding="utf-8"))
            before = self.defaults | progress["settings"]
            if before != self.settings:
                raise TrainingError(
                    f"{self.run} contains a run with other settings ({self._changed(before)}); "
                    "name another --run folder or delete it"
                )
            self.accelerator.load_state(state)
            self.parallel.load(state)
            self.step, self.best_scores = progress["step"], progress["best_scores"]
            self.stale = progress.get("stale", 0)
            epoch, done = progress["epoch"], progress["done"]
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            self._drop_rows_after(epoch)
            self._start(trackers)
        return epoch, done

    def checkpoint(self, epoch: int, done: int) -> None:
        """Writes all that an exact resume needs; a kill while writing leaves the previous one."""
        self.accelerator.wait_for_everyone()
        new, state, old = (self.run / f"checkpoint{end}" for end in (".new", "", ".old"))
        if self.accelerator.is_main_process:
            shutil.rmtree(new, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(new, safe_serialization=False)
        self.parallel.save(new)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            progress = {"epoch": epoch, "done": done, "step": self.step}
            progress |= {"best_scores": self.best_scores, "settings": self.settings}
            progress["stale"] = self.stale
            (new / "progress.json").write_text(json.dumps(progress), encoding="utf-8")
            if state.exists():
                shutil.rmtree(old, ignore_errors=True)
                state.rename(old)
            new.rename(state)
            shutil.rmtree(old, ignore_errors=True)
        self.accelerator.wait_for_everyone()

    def losses(self, losses: dict[str, float], rate: float) -> None:
        """One row for a weight update: its losses, their weighted sum, the next learning rate."""
        self.step += 1
        self._write(losses | {"learning_rate": rate})

    def scores(self, epoch: int, scores: dict[str, float], model: nn.Module, save: Save) -> None:
        """One row for a validation; the weights go to `last`, and to `best` if they are."""
        self._write({"epoch": epoch, **{f"validation/{k}": v for k, v in scores.items()}})
        save(model, self.run / "last")
        self.stale += 1
        if self._better(scores):
            self.stale = 0
            self.best_scores = {**scores, "epoch": float(epoch)}
            save(model, self.run / "best")

    def agree(self) -> None:
        """Tells all processes how long the best score has stood, so that they stop together."""
        own = float(self.stale) if self.accelerator.is_main_process else 0.0
        count = torch.tensor(own, device=self.accelerator.device)
        self.stale = int(self.accelerator.reduce(count, "sum"))

    def _better(self, scores: dict[str, float]) -> bool:
        name = self.select.score
        if not self.best_scores or math.isnan(self.best_scores[name]):
            return True
        return self.select.better(scores[name], self.best_scores[name])

    def _start(self, trackers: tuple[Tracker, ...]) -> None:
        from accelerate.tracking import TensorBoardTracker, WandBTracker

        started: list[Any] = []
        if "tensorboard" in trackers:
            later = {"purge_step": self.step + 1} if self.step else {}
            started.append(TensorBoardTracker("tensorboard", logging_dir=self.run, **later))
        if "wandb" in trackers:
            # The same id each time, so that a resumed run continues the same curve.
            name = self.run.resolve().name
            code = hashlib.sha256(str(self.run.resolve()).encode()).hexdigest()[:12]
            started.append(
                WandBTracker("earwitness", name=name, id=code, dir=str(self.run), resume="allow")
            )
        for tracker in started:
            tracker.start()
        self.accelerator.trackers = started

    def _changed(self, before: dict[str, Any]) -> str:
        keys = sorted({*before, *self.settings})
        return ", ".join(
            f"{key} was {before.get(key)!r}, is {self.settings.get(key)!r}"
            for key in keys
            if before.get(key) != self.settings.get(key)
        )

    def _drop_rows_after(self, epoch: int) -> None:
        """Rows that a stopped run wrote after its last checkpoint will be written again."""
        path = self.run / "log.jsonl"
        if not path.is_file():
            return
        kept = []
        for line in path.read_text(encoding="utf-8").splitlines():
            row = _row(line)
            if row is not None and row["step"] <= self.step and row.get("epoch", 0) <= epoch:
                kept.append(line + "\n")
        write_text(path, "".join(kept), TrainingError)

    def _write(self, row: dict[str, Any]) -> None:
        if not self.accelerator.is_main_process:
            return
        with (self.run / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": self.step, "time": round(time.time(), 2), **row}) + "\n")
        self.accelerator.log({k: v for k, v in row.items() if k != "epoch"}, step=self.step)


def _row(line: str) -> dict[str, Any] | None:
    """The row in `line`, or None for the half line that a kill leaves."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None
