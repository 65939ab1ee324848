"""`earwitness caption`: files, folders and hours of sound in; captions out."""

from pathlib import Path
from typing import Annotated

import typer

from earwitness.captioning.options import CaptionOptions, option_help
from earwitness.cli.adapter_options import (
    MODEL_HELP,
    BaseUrl,
    Prompt,
    Quantize,
    Quantized,
    adapter_of,
)
from earwitness.cli.caption_job import Input, Output, check_options, run
from earwitness.cli.caption_kinds import PRECISION_HELP, OutputFormat, Precision, Sidecar
from earwitness.cli.cluster_options import Engine, cluster_of
from earwitness.config import validate

_IN, _OUT, _SEARCH, _LONG, _RUN = "Input", "Output", "Captions", "Long sounds", "Running"
_RAY = "Many machines"


def caption(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE",
            help="Audio or video files, folders, globs, shards (tar, parquet), or - for one sound "
            "on standard input.",
            show_default=False,
        ),
    ] = None,
    manifest: Annotated[
        str | None,
        typer.Option(
            help="Read the file names from a CSV, TSV, JSONL, parquet or text file; - reads them "
            "from standard input, one per line.",
            rich_help_panel=_IN,
        ),
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(help="Column of the manifest that names the files.", rich_help_panel=_IN),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="In folders, only files that match. Repeatable.",
            rich_help_panel=_IN,
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Skip files and folders that match. Repeatable.",
            rich_help_panel=_IN,
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N", help="The I-th of N equal parts, for job arrays.", rich_help_panel=_IN
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write: .txt .tsv .jsonl .json .csv .parquet .srt .vtt; - for standard "
            "output. An interrupted job continues with the same command.",
            rich_help_panel=_OUT,
        ),
    ] = None,
    kind: Annotated[
        OutputFormat | None,
        typer.Option(
            "--format",
            "-f",
            help="Format, if not clear from the file extension.",
            rich_help_panel=_OUT,
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON object per line.", rich_help_panel=_OUT),
    ] = False,
    sidecar: Annotated[
        Sidecar | None,
        typer.Option(
            help="Write one file per sound (clip.txt) next to it, or in the folder --output.",
            rich_help_panel=_OUT,
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Discard earlier results and start over.", rich_help_panel=_OUT
        ),
    ] = False,
    failures: Annotated[
        Path | None,
        typer.Option(
            help="File that lists the failed files; default: <output>.failed.jsonl.",
            rich_help_panel=_OUT,
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            help=MODEL_HELP,
            rich_help_panel=_SEARCH,
        ),
    ] = "pocket-lamb",
    beam: Annotated[
        int | None,
        typer.Option(min=1, help=option_help("beam"), rich_help_panel=_SEARCH),
    ] = None,
    n_best: Annotated[
        int | None,
        typer.Option("--n-best", "-n", min=1, help=option_help("n_best"), rich_help_panel=_SEARCH),
    ] = None,
    sample: Annotated[
        bool,
        typer.Option("--sample", help=option_help("sample"), rich_help_panel=_SEARCH),
    ] = False,
    temperature: Annotated[
        float | None, typer.Option(help=option_help("temperature"), rich_help_panel=_SEARCH)
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(help=option_help("top_p"), rich_help_panel=_SEARCH)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help=option_help("seed"), rich_help_panel=_SEARCH)
    ] = None,
    guide_strength: Annotated[
        float | None,
        typer.Option(min=0, help=option_help("guide_strength"), rich_help_panel=_SEARCH),
    ] = None,
    rerank: Annotated[
        str | None,
        typer.Option(
            metavar="CLAP",
            help=option_help("rerank"),
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    rerank_weight: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help=option_help("rerank_weight"),
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    min_score: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help=option_help("min_score"),
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    silence: Annotated[
        float,
        typer.Option(
            metavar="DB",
            help=option_help("silence"),
            rich_help_panel=_SEARCH,
        ),
    ] = -60.0,
    prompt: Prompt = None,
    quantize: Quantized = Quantize.none,
    base_url: BaseUrl = None,
    timed: Annotated[
        bool,
        typer.Option(
            "--timed",
            help=option_help("timed"),
            rich_help_panel=_LONG,
        ),
    ] = False,
    window: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help=option_help("window"),
            rich_help_panel=_LONG,
        ),
    ] = None,
    hop: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help=option_help("hop"),
            rich_help_panel=_LONG,
        ),
    ] = None,
    whole: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help=option_help("whole"),
            rich_help_panel=_LONG,
        ),
    ] = None,
    track: Annotated[
        str | None,
        typer.Option(metavar="N|LANGUAGE", help=option_help("track"), rich_help_panel=_IN),
    ] = None,
    merge: Annotated[
        Path | None,
        typer.Option(
            metavar="SPEECH",
            help="Insert the sounds, as \\[dog barks], between the cues of this SRT or VTT file.",
            rich_help_panel=_LONG,
        ),
    ] = None,
    speech: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Also transcribe speech, with this Whisper model: a folder, or a name such as "
            "tiny.en if it is on this disk; the sounds, as \\[dog barks], go between the cues.",
            rich_help_panel=_LONG,
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.", rich_help_panel=_RUN)
    ] = "auto",
    precision: Annotated[Precision, typer.Option(help=PRECISION_HELP, rich_help_panel=_RUN)] = (
        Precision.fp32
    ),
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="CPU threads for the model; default: OMP_NUM_THREADS, or one per core.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Windows per batch; default: as many as fit in memory.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", help="Show no progress, only errors.", rich_help_panel=_RUN),
    ] = False,
    engine: Annotated[
        Engine,
        typer.Option(
            help="local, or ray: workers on a Ray cluster, files by path or URL (s3://, gs://, "
            "hdfs://, ...), a folder of parquet parts as output.",
            rich_help_panel=_RAY,
        ),
    ] = Engine.local,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="The cluster; auto for the one on this computer. Default: RAY_ADDRESS, or else a "
            "new one for this job.",
            rich_help_panel=_RAY,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Workers; default: as many as fit.", rich_help_panel=_RAY),
    ] = None,
    cpus: Annotated[
        float, typer.Option(min=0.1, help="CPUs per worker.", rich_help_panel=_RAY)
    ] = 1.0,
    gpus: Annotated[
        float,
        typer.Option(
            min=0, help="GPUs per worker; 0.25 lets four share one.", rich_help_panel=_RAY
        ),
    ] = 0.0,
    events: Annotated[
        bool,
        typer.Option(
            "--events/--no-events",
            help="Also list the sound events of each file (in parts and jsonl).",
            rich_help_panel=_RAY,
        ),
    ] = True,
    duplicates: Annotated[
        bool,
        typer.Option(
            "--duplicates",
            help="Record the SHA-256 and an audio fingerprint of each file, and mark duplicates of "
            "earlier files.",
            rich_help_panel=_RAY,
        ),
    ] = False,
    part_rows: Annotated[
        int,
        typer.Option(min=1, help="Maximum rows per parquet part.", rich_help_panel=_RAY),
    ] = 10_000,
) -> None:
    """Describes a sound in a sentence.

    One file prints its caption; several print 'file<TAB>caption'. Sounds over
    30 s give one line per segment. If a file cannot be read, it is reported,
    the others are still captioned, and the exit code is 1.

    Examples:

      earwitness caption dog.wav

      earwitness caption recordings/ -o captions.csv

      earwitness caption film.mp4 -o sounds.srt

      earwitness caption film.mp4 --merge speech.srt -o film.srt

      earwitness caption film.mp4 --speech tiny.en -o film.srt

      find . -name '*.flac' | earwitness caption --manifest - --json

      earwitness caption s3://sounds/2024/ --engine ray --address auto -o captions/
    """
    from earwitness.captioning.choice import ModelChoice

    given = Input(
        tuple(files or ()), manifest, column, tuple(include or ()), tuple(exclude or ()), shard
    )
    cluster = cluster_of(engine, address, workers, cpus, gpus, events, duplicates)
    if kind is None and output and not (output.suffix or as_json or sidecar) and cluster:
        kind = OutputFormat.parts
    if output == Path("-"):
        output = None
    out = Output(
        output, kind, as_json, sidecar, overwrite, failures, merge, speech, part_rows=part_rows
    )
    options = validate(
        CaptionOptions,
        {
            "beam": beam,
            "n_best": n_best,
            "sample": sample,
            "temperature": temperature,
            "top_p": top_p,
            "seed": seed,
            "guide_strength": guide_strength,
            "rerank": rerank,
            "rerank_weight": rerank_weight,
            "min_score": min_score,
            "silence": silence,
            "timed": timed,
            "window": window,
            "hop": hop,
            "whole": whole,
            "track": track,
        },
        "the options",
    )
    adapter = adapter_of(prompt, quantize, base_url)
    chosen = ModelChoice(model, options, device, precision.value, batch_size, adapter)
    given.check()
    out.check(given)
    check_options(options)
    if threads is not None:
        from earwitness.captioning.captioner import set_threads

        set_threads(threads)
    if run(chosen, given, out, quiet, cluster):
        raise typer.Exit(1)
