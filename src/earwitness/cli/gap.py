"""`earwitness gap`: the modality gap of a model, or of two files of paired embeddings."""

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from earwitness.cli.outputs import by_ending
from earwitness.errors import ConfigError, DataError, MissingDependencyError, pip_install

if TYPE_CHECKING:
    import numpy as np

    from earwitness.gap import GapReport
    from earwitness.gap.plots import Projection


_IN, _HOW, _PLOTS, _OUT = "Input", "Measurement", "Plots", "Output"


@dataclass(frozen=True)
class Embeddings:
    """The input of a gap report: one sound per row, and captions with the row of their sound."""

    audio: "np.ndarray"
    text: "np.ndarray"
    bridged: "np.ndarray | None" = None
    owner: "np.ndarray | None" = None
    captions: list[str] | None = None


def gap(
    model: Annotated[
        Path | None, typer.Argument(help="A model folder; use it with --pairs.")
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(
            help="Manifest of clips and captions, for a model folder.", rich_help_panel=_IN
        ),
    ] = None,
    audio: Annotated[
        str | None,
        typer.Option(
            help="Sounds, one vector per row: .npy, .safetensors, .parquet.", rich_help_panel=_IN
        ),
    ] = None,
    text: Annotated[
        str | None, typer.Option(help="Captions, one vector per row.", rich_help_panel=_IN)
    ] = None,
    bridged: Annotated[
        str | None,
        typer.Option(
            help="The sounds after a bridge, in the order of --audio.", rich_help_panel=_IN
        ),
    ] = None,
    captions: Annotated[
        Path | None,
        typer.Option(
            help="CSV with a column caption, one line per row of --text; an optional column owner "
            "gives the row of its sound.",
            rich_help_panel=_IN,
        ),
    ] = None,
    tokens: Annotated[
        bool,
        typer.Option(
            help="Compare pooled LLM tokens by L2 and cosine, unnormalized (LAMB, Table 2).",
            rich_help_panel=_HOW,
        ),
    ] = False,
    normalize: Annotated[
        bool, typer.Option(help="Scale every vector to unit length.", rich_help_panel=_HOW)
    ] = True,
    projection: Annotated[
        str, typer.Option(help="pca, umap, or pca,umap.", rich_help_panel=_PLOTS)
    ] = "pca",
    sweep: Annotated[
        Path | None,
        typer.Option(
            help="CSV t_star,steps,value (low,high): a sweep over t*.", rich_help_panel=_PLOTS
        ),
    ] = None,
    curve: Annotated[
        Path | None,
        typer.Option(help="CSV step,...: quantities during training.", rich_help_panel=_PLOTS),
    ] = None,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write: .json (the numbers) or .html (a report). Repeatable.",
            rich_help_panel=_OUT,
        ),
    ] = None,
    report: Annotated[Path | None, typer.Option(hidden=True)] = None,
    figures: Annotated[
        Path | None, typer.Option(help="Folder for PNG and SVG figures.", rich_help_panel=_OUT)
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", hidden=True)] = None,
    bootstrap: Annotated[
        int, typer.Option(help="Resamples for the intervals.", rich_help_panel=_HOW)
    ] = 1000,
    shown: Annotated[
        int, typer.Option(help="Pairs in the scatter plots.", rich_help_panel=_PLOTS)
    ] = 300,
    seed: Annotated[
        int, typer.Option(help="Seed for all random choices.", rich_help_panel=_HOW)
    ] = 0,
) -> None:
    """Measures the gap between sounds and captions, each quantity with a 95 % interval.

    Examples:

      earwitness gap runs/link/best --pairs test.csv

      earwitness gap --audio audio.npy --text text.npy --bridged bridged.npy -o gap.html
    """
    outputs = by_ending(output or [], (".json", ".html"))
    report, json_file = outputs.get(".html", report), outputs.get(".json", json_file)
    given = _given(model, pairs, audio, text, bridged, captions)
    methods = _methods(projection)
    settings: dict[str, Any] = {"seed": seed, "bootstrap": bootstrap}
    if shown < 1:
        raise ConfigError(f"--shown {shown}: expected 1 or more")
    _check_folders(report, json_file)
    found = _measure(given, tokens=tokens, normalize=normalize, settings=settings)
    typer.echo(_as_text(found))
    for warning in found.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if json_file is not None:
        _write(json_file, json.dumps(found.as_dict(), indent=2) + "\n")
    if report is None and figures is None:
        return
    views = _projections(given, methods, shown, seed)
    drawn = _pictures(given, sweep, curve, seed)
    if report is not None:
        from earwitness.gap.plots import gap_page

        _write(report, gap_page(found, projections=views, captions=given.captions, figures=drawn))
    if figures is not None:
        _save(figures, views, drawn)


def _embeddings_from_model(model: Path, manifest: Path) -> Embeddings:
    """The embeddings of a manifest's clips and captions under a model folder, with its bridge."""
    import numpy as np
    from rich.console import Console
    from rich.progress import track

    from earwitness import audio
    from earwitness.data.manifest import read_manifest
    from earwitness.system.captioner import TorchCaptioner

    captioner = TorchCaptioner.load(model)
    clips = read_manifest(manifest)
    captions = [text for clip in clips for text in clip.captions]
    owner = np.array([i for i, clip in enumerate(clips) for _ in clip.captions])
    rows: list[np.ndarray] = []
    for clip in track(clips, "encoding sounds", console=Console(stderr=True)):
        waveform = audio.load(clip.audio, captioner.encoder.sample_rate)
        rows.append(captioner.pooled_audio(captioner.encode([waveform])).detach().numpy()[0])
    text = captioner.pooled_text(captions).detach().numpy()
    return Embeddings(np.stack(rows), text, None, owner, captions)


def _given(
    model: Path | None,
    pairs: Path | None,
    audio: str | None,
    text: str | None,
    bridged: str | None,
    captions: Path | None,
) -> Embeddings:
    if model is not None or pairs is not None:
        if model is None or pairs is None or audio or text or bridged or captions:
            raise typer.BadParameter(
                "expected either a model folder and --pairs, or --audio and --text"
            )
        return _embeddings_from_model(model, pairs)
    if audio is None or text is None:
        raise typer.BadParameter("expected --audio and --text, or a model folder and --pairs")
    from earwitness.gap import load_captions, load_vectors

    sentences, owner = (None, None) if captions is None else load_captions(captions)
    found = Embeddings(
        audio=load_vectors(audio),
        text=load_vectors(text),
        bridged=None if bridged is None else load_vectors(bridged),
        owner=owner,
        captions=sentences,
    )
    if sentences is not None and len(sentences) != len(found.text):
        raise DataError(
            f"{captions} has {len(sentences)} captions and {text} {len(found.text)} vectors; "
            "expected equal numbers"
        )
    return found


def _methods(projection: str) -> list[str]:
    methods = list(dict.fromkeys(part.strip().lower() for part in projection.split(",")))
    if not set(methods) <= {"pca", "umap"}:
        raise ConfigError(f"--projection {projection!r}: expected pca, umap or pca,umap")
    if "umap" in methods and find_spec("umap") is None:
        raise MissingDependencyError(
            f"the UMAP projection needs umap-learn; install it with: {pip_install('umap')}"
        )
    return methods


def _check_folders(*outputs: Path | None) -> None:
    """Fail before the long computation if its results could not be written."""
    for path in outputs:
        if path is not None and not path.parent.is_dir():
            raise ConfigError(f"cannot write {path}; expected a file in an existing folder")


def _measure(
    given: Embeddings, *, tokens: bool, normalize: bool, settings: dict[str, Any]
) -> "GapReport":
    from earwitness.gap import measure, token_gap

    if not tokens:
        return measure(
            given.audio,
            given.text,
            owner=given.owner,
            bridged=given.bridged,
            normalize=normalize,
            **settings,
        )
    if given.owner is not None:
        raise ConfigError("--tokens compares one caption per clip; omit the column owner")
    if given.bridged is None:
        return token_gap(given.audio, given.text, **settings)
    return token_gap(given.bridged, given.text, z_a_before=given.audio, **settings)


def _as_text(report: "GapReport") -> str:
    """The table of numbers for the terminal."""
    clouds = report.clouds()
    lines = [f"{'quantity':<20}" + "".join(f"{cloud:>30}" for cloud in clouds) + "  better"]
    for name in dict.fromkeys(row.name for row in report.rows):
        line = f"{name:<20}"
        for cloud in clouds:
            row = report.quantity(name, cloud)
            ends = f"[{row.low:.4f}, {row.high:.4f}]"
            line += f"{row.value:>11.4f} {ends:>18}"
        lines.append(f"{line}  {report.quantity(name, clouds[0]).direction}")
    return "\n".join(lines)


def _projections(
    given: Embeddings, methods: list[str], shown: int, seed: int
) -> "list[Projection]":
    from earwitness.gap.plots import project

    return [
        project(
            given.audio,
            given.text,
            given.bridged,
            owner=given.owner,
            method=method,
            shown=shown,
            seed=seed,
        )
        for method in methods
    ]


def _numbers(path: Path, name: str, cells: list[str]) -> list[float]:
    try:
        return [float(cell) for cell in cells]
    except ValueError as error:
        raise DataError(f"{path}, column {name}: {error}; expected numbers") from error


def _columns(path: Path, required: tuple[str, ...]) -> dict[str, list[float]]:
    from earwitness.gap import load_columns

    found = load_columns(path, required)
    return {name: _numbers(path, name, cells) for name, cells in found.items()}


def _pictures(
    given: Embeddings, sweep: Path | None, curve: Path | None, seed: int
) -> dict[str, tuple[Any, str]]:
    from earwitness.gap import plots

    histogram = plots.histogram_figure(
        given.audio, given.text, given.bridged, owner=given.owner, seed=seed
    )
    said = "Cosine of each sound and its own caption (filled) or another one (outline)."
    drawn: dict[str, tuple[Any, str]] = {"histogram": (histogram, said)}
    if sweep is not None:
        c = _columns(sweep, ("t_star", "steps", "value"))
        ends = None
        if "low" in c and "high" in c:
            ends = list(zip(c["low"], c["high"], strict=True))
        t_stars, steps = [int(t) for t in c["t_star"]], [int(k) for k in c["steps"]]
        figure = plots.sweep_figure(t_stars, steps, c["value"], ends)
        drawn["sweep"] = (figure, "The start time t* and the number of sampling steps.")
    if curve is not None:
        c = _columns(curve, ("step",))
        steps = [int(step) for step in c.pop("step")]
        figure = plots.training_curve_figure(steps, c, quantity=", ".join(c))
        drawn["training"] = (figure, "The gap during training.")
    return drawn


def _save(folder: Path, views: "list[Projection]", drawn: dict[str, tuple[Any, str]]) -> None:
    from earwitness.gap.plots import save_figures
    from earwitness.gap.plots.figures import draw_projection

    every = {view.method: draw_projection(view) for view in views}
    every |= {name: figure for name, (figure, _) in drawn.items()}
    for path in save_figures(every, folder):
        typer.echo(f"wrote {path}", err=True)


def _write(path: Path, content: str) -> None:
    from earwitness.io.atomic import write_text

    write_text(path, content, make_folder=False)
    typer.echo(f"wrote {path}", err=True)
