"""`earwitness evaluate`: predictions and references in; scores, intervals and a report out."""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from earwitness.cli.metric_options import CoreNlp, Fluency, Java, Sbert
from earwitness.cli.outputs import by_ending
from earwitness.errors import DataError

if TYPE_CHECKING:
    from earwitness.evaluation import Evaluation
    from earwitness.evaluation.files import Matched
    from earwitness.evaluation.report import Report

_IN, _SCORES, _STATS, _OUT = "Input", "Scores", "Statistics", "Output"

_Score = Callable[["Matched"], "Evaluation"]


def evaluate(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PREDICTIONS... REFERENCES",
            help="A system's captions (several files: one per seed), then the references.",
            show_default=False,
        ),
    ] = None,
    cross: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PREDICTIONS=REFERENCES",
            help="One of several data sets, in one table. Repeatable.",
            rich_help_panel=_IN,
        ),
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(
            help="A second system's captions, for a paired test; once per seed.",
            rich_help_panel=_IN,
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Only these, comma-separated: bleu,cider_d,meteor,...", rich_help_panel=_SCORES
        ),
    ] = None,
    tokenizer: Annotated[
        str,
        typer.Option(help="Tokenizer: simple, or ptb (needs Java).", rich_help_panel=_SCORES),
    ] = "simple",
    partial: Annotated[
        bool,
        typer.Option(
            "--partial",
            help="Score only the clips that both sides have; list the others.",
            rich_help_panel=_IN,
        ),
    ] = False,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write: .json (all scores and the fingerprint), .csv (scores per clip), "
            ".html (a report). Repeatable.",
            rich_help_panel=_OUT,
        ),
    ] = None,
    json_path: Annotated[Path | None, typer.Option("--json", hidden=True)] = None,
    csv_path: Annotated[Path | None, typer.Option("--csv", hidden=True)] = None,
    html_path: Annotated[Path | None, typer.Option("--html", hidden=True)] = None,
    audio: Annotated[
        Path | None,
        typer.Option(help="Folder with the clips, to play in the report.", rich_help_panel=_OUT),
    ] = None,
    sbert: Sbert = None,
    fluency: Fluency = None,
    corenlp: CoreNlp = None,
    java: Java = None,
    timeout: Annotated[
        float,
        typer.Option(
            min=1,
            help="Time limit for one Java run or SPICE batch, in seconds.",
            rich_help_panel=_SCORES,
        ),
    ] = 600.0,
    resamples: Annotated[
        int,
        typer.Option(
            min=0,
            help="Bootstrap resamples and random swaps; 0 omits the intervals.",
            rich_help_panel=_STATS,
        ),
    ] = 1000,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed for resampling.", rich_help_panel=_STATS)
    ] = 0,
    id_column: Annotated[
        str | None, typer.Option(help="Column with the clip ids.", rich_help_panel=_IN)
    ] = None,
    text_column: Annotated[
        str | None, typer.Option(help="Caption column in PREDICTIONS.", rich_help_panel=_IN)
    ] = None,
    reference_column: Annotated[
        str | None, typer.Option(help="Caption column in REFERENCES.", rich_help_panel=_IN)
    ] = None,
) -> None:
    """Scores captions against references, each metric with a 95 % interval.

    PREDICTIONS is CSV, TSV, JSONL, JSON or parquet with an id and a caption
    per clip, or the folder of a captioning run. REFERENCES has numbered
    columns (caption_1, caption_2, ...), a list, or one row per caption. COCO
    caption files work on both sides. Clips are matched by id, else by file
    name, else by file name without its extension. Metrics that cannot run are
    listed with the reason; see also 'earwitness metrics doctor'.

    Examples:

      earwitness evaluate captions.csv references.csv

      earwitness evaluate captions.csv references.csv -o r.html --audio clips/

      earwitness evaluate ours.csv references.csv --against theirs.csv

      earwitness evaluate seed1.csv seed2.csv references.csv -o scores.json

      earwitness evaluate --cross c.csv=clotho.csv --cross a.csv=caps.csv
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from earwitness.evaluation import evaluate as score
    from earwitness.evaluation.files import match, read_predictions, read_references
    from earwitness.evaluation.scores import select

    outputs = _outputs(output or [], json_path, csv_path, html_path)
    wanted = None if metrics is None else [m.strip() for m in metrics.split(",") if m.strip()]
    select(wanted)
    groups = _groups(files or [], cross or [])
    if cross and against:
        raise typer.BadParameter("--against compares on one data set; omit --cross")

    def load(predictions: Path, references: Path) -> "Matched":
        captions = read_predictions(predictions, id_column=id_column, text_column=text_column)
        truth = read_references(references, id_column=id_column, text_column=reference_column)
        return match(captions, truth, partial=partial)

    def run(matched: "Matched") -> "Evaluation":
        return score(
            matched.candidates,
            matched.references,
            metrics=wanted,
            ids=matched.ids,
            tokenizer=tokenizer,
            java=java,
            corenlp=corenlp,
            sbert=sbert,
            fluency=fluency,
            timeout=timeout,
            resamples=resamples,
            seed=seed,
            progress=_say,
        )

    reports = [_report(paths, truth, against or [], load, run) for truth, paths in groups]
    reports = _with_distinct_names(reports, [truth for truth, _ in groups])
    _write(reports, outputs, audio)
    _print(reports)
    asked = {*(wanted or []), *(["sbert_sim"] if sbert else []), *(["fer"] if fluency else [])}
    if asked & {name for report in reports for name in report.not_run}:
        raise typer.Exit(1)


def _outputs(
    output: list[Path], json_path: Path | None, csv_path: Path | None, html_path: Path | None
) -> dict[str, Path]:
    """The output files by extension; those of --json, --csv and --html may have any name."""
    named = {".json": json_path, ".csv": csv_path, ".html": html_path}
    given = {ending: path for ending, path in named.items() if path is not None}
    return by_ending(output, tuple(named)) | given


def _with_distinct_names(reports: "list[Report]", references: list[Path]) -> "list[Report]":
    """The reports, named by the paths of their references if the short names are not unique."""
    if len({report.dataset for report in reports}) == len(reports):
        return reports
    pairs = zip(reports, references, strict=True)
    return [replace(report, dataset=str(path)) for report, path in pairs]


def _groups(files: list[Path], cross: list[str]) -> list[tuple[Path, list[Path]]]:
    """References and their prediction files, one group per data set."""
    if bool(files) == bool(cross):
        raise typer.BadParameter("give PREDICTIONS and REFERENCES, or --cross pairs")
    if files:
        if len(files) < 2:
            raise typer.BadParameter(f"{files[0]}: REFERENCES is missing")
        return [(files[-1], files[:-1])]
    groups: dict[Path, list[Path]] = {}
    for pair in cross:
        predictions, equals, references = pair.partition("=")
        if not equals or not predictions or not references:
            raise typer.BadParameter(f"--cross {pair}: expected PREDICTIONS=REFERENCES")
        groups.setdefault(Path(references), []).append(Path(predictions))
    return [*groups.items()]


def _report(
    predictions: list[Path],
    references: Path,
    against: list[Path],
    load: Callable[[Path, Path], "Matched"],
    run: _Score,
) -> "Report":
    from earwitness.evaluation import compare
    from earwitness.evaluation.report import make_report

    if against and len(against) != len(predictions):
        raise DataError(
            f"expected equal numbers of seeds, got {len(predictions)} and {len(against)}"
        )
    matched = [load(path, references) for path in [*predictions, *against]]
    for path, one in zip([*predictions, *against], matched, strict=True):
        if one.ids != matched[0].ids:
            raise DataError(f"{path}: covers different clips from {predictions[0]}")
    runs: list[Evaluation] = []
    for path, one in zip([*predictions, *against], matched, strict=True):
        _say(f"{path}: {len(one.ids)} clips")
        runs.append(run(one))
    ours, theirs = runs[: len(predictions)], runs[len(predictions) :]
    notes = [note for one in matched for note in one.notes]
    report = make_report(references.stem, [str(path) for path in predictions], ours, notes)
    if not theirs:
        return report
    names = [str(path) for path in against]
    return replace(report, against=names, other=theirs, differences=compare(ours, theirs))


def _write(reports: "list[Report]", outputs: dict[str, Path], audio: Path | None) -> None:
    from earwitness.evaluation.html import page
    from earwitness.evaluation.report import as_json, write_per_clip
    from earwitness.io.atomic import write_text

    for ending, path in outputs.items():
        if ending == ".json":
            write_text(path, as_json(reports), DataError, make_folder=False)
        elif ending == ".csv":
            write_per_clip(reports, path)
        else:
            html = page(reports, audio=audio, folder=path.resolve().parent)
            write_text(path, html, DataError, make_folder=False)
        _say(f"written: {path}")


def _print(reports: "list[Report]") -> None:
    from earwitness.evaluation.report import cross_table, table

    typer.echo(table(reports[0]) if len(reports) == 1 else cross_table(reports))


def _say(text: str) -> None:
    print(text, file=sys.stderr)
