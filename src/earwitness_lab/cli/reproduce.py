"""`earwitness reproduce`: a paper's experiments, from checks to the table."""

import shlex
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from earwitness_lab.reproduce.plan import Plan, Stage


class System(StrEnum):
    """Which paper."""

    lamb = "lamb"
    link = "link"


class Size(StrEnum):
    """How large."""

    paper = "paper"
    pocket = "pocket"
    tiny = "tiny"


def reproduce(
    system: Annotated[System, typer.Argument(help="lamb, or link for Diffusion-Link.")],
    data: Annotated[
        Path | None,
        typer.Option(help="Folder with 'manifests' (pocket: the data folder); default: data."),
    ] = None,
    size: Annotated[
        Size, typer.Option(help="tiny tries the command out on synthetic sounds.")
    ] = Size.paper,
    runs: Annotated[Path | None, typer.Option(help="Folder of the runs; default: runs.")] = None,
    stages: Annotated[
        list[str] | None,
        typer.Option(help="Run only this stage, by its name in the plan. Repeatable."),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(min=1, help="Processes to train and caption with; default: one per GPU."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print the plan and run the checks.")
    ] = False,
    download: Annotated[
        bool, typer.Option("--download", help="Download missing weights from the hub.")
    ] = False,
    recipes: Annotated[Path | None, typer.Option(help="Folder of the recipes.")] = None,
    sbert: Annotated[str | None, typer.Option(help="Sentence encoder of FENSE.")] = None,
    fluency: Annotated[str | None, typer.Option(help="Fluency detector of FENSE.")] = None,
) -> None:
    """Runs a paper's experiments: checks, training, evaluation, and a table beside the paper's.

    The same command continues where it stopped; finished stages are skipped.

    Examples:

        earwitness reproduce lamb --size tiny

        earwitness reproduce lamb --data data --dry-run

        earwitness reproduce link --data data --stages link_bridge
    """
    from earwitness_lab.reproduce.checks import check_all, first_missing
    from earwitness_lab.reproduce.plan import make_plan, run_stages
    from earwitness_lab.reproduce.table import score_rows, tables, write_tables

    plan = make_plan(
        system.value, size.value, recipes=recipes, data=data, runs=runs, stages=stages or (),
        processes=processes or _gpus(),
    )  # fmt: skip
    for stage in plan.stages:
        typer.echo(_stage_line(plan, stage))
    typer.echo("")
    checks = []
    for check in check_all(plan, download=download, sbert=sbert, fluency=fluency):
        checks.append(check)
        typer.echo(str(check))
    typer.echo("")
    if dry_run:
        return
    problem = first_missing(checks)
    if problem:
        raise problem
    run_stages(plan, typer.echo)
    if plan.evaluates:
        scores = score_rows(plan, typer.echo, sbert=sbert, fluency=fluency)
        path = write_tables(plan, scores)
        typer.echo(f"\n{tables(plan, scores)}\n\n{path}")


def _gpus() -> int:
    import torch

    return max(1, torch.cuda.device_count())


def _stage_line(plan: "Plan", stage: "Stage") -> str:
    """A stage with what it starts from, how long it may take, and its command."""
    from earwitness_lab.reproduce.checks import WEIGHT_BYTES, stage_clips
    from earwitness_lab.reproduce.gpu import hours
    from earwitness_lab.reproduce.plan import WEIGHTS

    state = "finished" if stage.finished else "started" if stage.started else "to do"
    if stage.name not in plan.chosen:
        state += ", not asked for"
    needs = []
    for key in WEIGHTS:
        name = getattr(stage.recipe, key, None)
        if isinstance(name, Path):
            size = WEIGHT_BYTES.get(str(name))
            needs.append(f"{name}{f' ({size / 1e9:.1f} GB)' if size else ''}")
    expected = hours(stage.recipe, stage_clips(stage)) if plan.size == "paper" else None
    time = "hours unknown"
    if expected:
        time = f"about {expected[0]:.1f} to {expected[1]:.1f} h of an A100 (counted)"
    return (
        f"stage    {stage.name} [{state}], {time}; from {', '.join(needs) or 'nothing'}\n"
        f"         {shlex.join(stage.command)}"
    )
