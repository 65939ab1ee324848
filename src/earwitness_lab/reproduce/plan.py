"""The experiments of both papers as a plan: which recipes in which order, on which data, to which
rows of which table; and the run of that plan, which resumes where it stopped.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from earwitness.config import read_toml
from earwitness.errors import ConfigError, TrainingError
from earwitness.io.shipped import shipped
from earwitness.training.settings import FitConfig
from earwitness.training.stages import read_recipe, run_recipe
from earwitness_lab.reproduce.tiny import TINY_LINK, tiny_lamb, tiny_weights, write_tiny_world

System = Literal["lamb", "link"]
Size = Literal["paper", "pocket", "tiny"]
Say = Callable[[str], None]

EVALUATE = "evaluate"
"""the name of the last stage: captions of the test clips, and the table"""

WEIGHTS = ("init", "encoder", "decoder", "text", "bridge")
"""keys of a recipe that name weights"""

_LAMB = ("lamb_pretrain", "lamb_audiocaps", "lamb_clotho")
_LINK = (
    "link_bridge",
    "paper_ablations/link_zeroshot_baseline",
    "link_zeroshot",
    "paper_ablations/link_supervised_baseline",
    "link_supervised",
)
STAGES: dict[tuple[str, str], tuple[str, ...]] = {
    ("lamb", "paper"): _LAMB,
    ("lamb", "tiny"): _LAMB,
    ("lamb", "pocket"): ("pocket_lamb",),
    ("link", "paper"): _LINK,
    ("link", "tiny"): _LINK,
    ("link", "pocket"): ("pocket_link_zeroshot", "pocket_link_supervised"),
}
"""(system, size) -> recipes by their path in the folder of recipes; what they start from goes
before them
"""


@dataclass(frozen=True)
class Row:
    """One row of ours: its label in the table, the stage whose model it is, and its test clips."""

    label: str
    stage: str
    test: Path


@dataclass(frozen=True)
class Stage:
    """One training run."""

    name: str
    path: Path
    """of its recipe"""
    run: Path
    overrides: tuple[str, ...]
    data: Path | None
    """folder of scenes, where the recipe reads one"""
    processes: int = 1
    """how many train together"""

    @cached_property
    def recipe(self) -> Any:
        """The recipe, validated. Raises ConfigError."""
        return read_recipe(self.path, list(self.overrides), self.data)

    @property
    def command(self) -> list[str]:
        """What a user would type."""
        several = ["torchrun", *_torchrun(self.processes)] if self.processes > 1 else []
        return [*several, "earwitness", *self.words]

    @property
    def words(self) -> list[str]:
        """What follows the name of the command."""
        words = ["train", str(self.path), "--run", str(self.run)]
        words += ["--data", str(self.data)] if self.data else []
        return words + [word for change in self.overrides for word in ("--set", change)]

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, whoever started it, on however many processes."""
        if not (self.run / "best").is_dir():
            return False
        try:
            progress = json.loads((self.run / "checkpoint" / "progress.json").read_text())
            patience = self.recipe.fit.patience
            stopped = bool(patience) and progress.get("stale", 0) >= patience
            return stopped or progress["epoch"] >= self.recipe.fit.epochs
        except (OSError, ValueError, KeyError, TypeError):
            return (self.run / "scores.json").is_file()

    @property
    def started(self) -> bool:
        """Whether it resumes from a checkpoint."""
        return any((self.run / name).is_dir() for name in ("checkpoint", "checkpoint.old"))


@dataclass(frozen=True)
class Plan:
    """A system at a size: all stages, those that are asked for, and the rows at the end."""

    system: System
    size: Size
    stages: tuple[Stage, ...]
    chosen: tuple[str, ...]
    rows: tuple[Row, ...]
    runs: Path
    data: Path
    processes: int = 1
    """how many train and caption together, one per GPU"""

    @property
    def evaluates(self) -> bool:
        return EVALUATE in self.chosen

    def selected(self) -> list[Stage]:
        """The stages that are asked for, in order."""
        return [stage for stage in self.stages if stage.name in self.chosen]

    def maker(self, weights: Path) -> Stage | None:
        """The stage that leaves `weights` in its run folder; None if it is none of these."""
        return next((stage for stage in self.stages if stage.run in weights.parents), None)


def make_plan(
    system: System,
    size: Size = "paper",
    *,
    recipes: Path | None = None,
    data: Path | None = None,
    runs: Path | None = None,
    stages: Sequence[str] = (),
    processes: int = 1,
) -> Plan:
    """The plan of `system` at `size`; `stages` are those to do, all if none is named.

    `data`: for paper the folder that holds `manifests`, for pocket the data folder of
    docs/scenes.md; tiny makes its own sounds. `processes` train and caption together; they share
    the batch of each recipe, which is a total.

    Raises:
        ConfigError: a stage or folder that is not there, an inconsistent recipe, or a
            batch that the processes cannot share.
    """
    processes = 1 if size == "tiny" else processes
    if size == "tiny" and data is not None:
        raise ConfigError(f"--data {data}: size 'tiny' makes its own sounds; leave it out")
    folder = recipes_folder(recipes)
    runs = runs or (Path("runs") / "reproduce-tiny" if size == "tiny" else Path("runs"))
    data = data or (runs / "data" if size == "tiny" else Path("data"))
    names = _in_order(folder, STAGES[system, size])
    made = tuple(_stage(folder / f"{name}.toml", size, runs, data, processes) for name in names)
    known = [*(stage.name for stage in made), EVALUATE]
    for name in stages:
        if name not in known:
            raise ConfigError(f"--stages {name!r}: expected one of {', '.join(known)}")
    plan = Plan(
        system, size, made, tuple(stages) or tuple(known), _rows(system, size, data), runs, data,
        processes,
    )  # fmt: skip
    for stage in plan.stages:
        _ = stage.recipe
    return plan


def recipes_folder(given: Path | None = None) -> Path:
    """Where the recipes are: `given`, ./recipes, or those of the installation.

    Raises:
        ConfigError: there are none.
    """
    for folder in (given,) if given else (Path("recipes"), shipped("recipes")):
        if folder and (folder / "lamb_pretrain.toml").is_file():
            return folder
    raise ConfigError(
        f"{given or 'recipes'}: no recipes there (lamb_pretrain.toml, ...); name the folder "
        "'recipes' of earwitness' repository with --recipes"
    )


def run_stages(plan: Plan, say: Say) -> None:
    """Trains what is asked for and not finished yet.

    Each stage has a process of its own, so that its memory is free for the next; tiny ones share
    this one.

    Raises:
        TrainingError: a stage stopped.
    """
    if plan.size == "tiny":
        write_tiny_world(plan.data)
    for stage in plan.selected():
        if stage.finished:
            say(f"done     {stage.name}: {stage.run}/best is there")
            continue
        say(f"{'resuming' if stage.started else 'training'} {stage.name}: {stage.run}")
        if plan.size == "tiny":
            run_recipe(stage.path, stage.run, list(stage.overrides))
            continue
        launch(plan.processes, ["earwitness", *stage.words], f"stage '{stage.name}'")


def launch(processes: int, words: Sequence[str], what: str) -> None:
    """Runs a module (its name and arguments are `words`) in a process of its own, or in several
    that work together, as torchrun starts them.

    Raises:
        TrainingError: it stopped.
    """
    several = ["torch.distributed.run", *_torchrun(processes)] if processes > 1 else []
    command = [sys.executable, "-m", *several, *words]
    code = subprocess.run(command, check=False).returncode
    if code:
        raise TrainingError(
            f"{what} stopped with exit code {code} (its reason is above); the same command resumes "
            "from there"
        )


def _torchrun(processes: int) -> list[str]:
    # Without the `--` torchrun takes `--run` for its own `--run-path`.
    return ["--standalone", f"--nproc-per-node={processes}", "-m", "--"]


def _in_order(folder: Path, wanted: Sequence[str]) -> list[str]:
    """`wanted`, and before each the recipes whose runs it starts from."""
    found: list[str] = []
    for name in wanted:
        tables = read_toml(folder / f"{name}.toml")
        weights = [tables.get(key) for key in WEIGHTS]
        runs = [Path(w).parts[1] for w in weights if isinstance(w, str) and w.startswith("runs/")]
        found += _in_order(folder, runs)
        found.append(name)
    return list(dict.fromkeys(found))


def _stage(path: Path, size: Size, runs: Path, data: Path, processes: int) -> Stage:
    tables = read_toml(path)
    changes = _moved(tables, runs, data)
    if size == "tiny":
        changes += tiny_weights(tables, data)
        changes += tiny_lamb(tables) if tables["stage"] == "lamb" else TINY_LINK[tables["stage"]]
    if processes > 1:
        changes.append(f"fit.batch_size={_shared(tables, path, processes)}")
    scenes = data if "data" in tables else None
    return Stage(path.stem, path, runs / path.stem, tuple(changes), scenes, processes)


def _shared(tables: dict[str, Any], path: Path, processes: int) -> int:
    """The batch of one process, where the recipe's batch is that of all."""
    total = tables["fit"].get("batch_size", FitConfig().batch_size)
    if total % processes:
        raise ConfigError(
            f"--processes {processes}: the batch of {path} is {total} clips in total, which "
            f"{processes} processes cannot share; expected a number that divides it"
        )
    return total // processes


def _moved(tables: dict[str, Any], runs: Path, data: Path) -> list[str]:
    """Overrides that put `runs` and `data` in the place of the recipe's own folders."""
    source = tables.get("source", {})
    found = {key: tables.get(key) for key in WEIGHTS}
    found |= {f"source.{key}": source.get(key) for key in ("train", "validation")}
    changes = []
    for key, value in found.items():
        names: list[Any] = value if isinstance(value, list) else [value]
        if not all(isinstance(name, str) for name in names):
            continue
        moved = [_below(_below(name, "runs", runs), "data", data) for name in names]
        if moved != names:
            text = json.dumps(moved if isinstance(value, list) else moved[0], ensure_ascii=False)
            changes.append(f"{key}={text}")
    return changes


def _below(name: str, first: str, folder: Path) -> str:
    return str(folder / name[len(first) + 1 :]) if name.startswith(f"{first}/") else name


def _rows(system: System, size: Size, data: Path) -> tuple[Row, ...]:
    audiocaps, clotho = (
        data / "manifests" / f"{name}.test.csv" for name in ("audiocaps", "clotho")
    )
    dev = data / "dev" / "captions.csv"
    if system == "lamb":
        if size == "pocket":
            return (Row("pocket LAMB", "pocket_lamb", dev),)
        return (
            Row("AudioCaps", "lamb_audiocaps", audiocaps),
            Row("Clotho", "lamb_clotho", clotho),
        )
    if size == "pocket":
        return (
            Row("zero-shot", "pocket_link_zeroshot", dev),
            Row("supervised", "pocket_link_supervised", dev),
        )
    return (
        Row("zero-shot baseline", "link_zeroshot_baseline", audiocaps),
        Row("zero-shot", "link_zeroshot", audiocaps),
        Row("supervised baseline", "link_supervised_baseline", audiocaps),
        Row("supervised", "link_supervised", audiocaps),
    )
