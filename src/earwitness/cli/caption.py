"""`earwitness caption`: files, folders and hours of sound in; captions out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from earwitness.cli.caption_setup import (
    OutputFormat,
    Precision,
    Sidecar,
    completed,
    fingerprint,
    list_sources,
    listening_of,
    load_model,
    load_reranker,
    open_failures,
    open_sink,
    output_format,
    read_speech,
)
from earwitness.cli.caption_talk import Talk
from earwitness.errors import ConfigError

if TYPE_CHECKING:
    from earwitness.captioning.captioner import Captioner
    from earwitness.captioning.journal import Failures
    from earwitness.captioning.local import Listening
    from earwitness.captioning.sinks import Sink
    from earwitness.captioning.sources import Source

_IN, _OUT, _SEARCH, _LONG, _RUN = "Input", "Output", "Captions", "Long sounds", "Running"


def caption(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE",
            help="Sound or video files, folders, globs, shards (tar, parquet), or - for a sound on "
            "standard input.",
            show_default=False,
        ),
    ] = None,
    manifest: Annotated[
        str | None,
        typer.Option(
            help="Take the files from a CSV, TSV, JSONL, parquet or text file; - reads paths "
            "from standard input, one a line.",
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
            metavar="PATTERN", help="Only these files of a folder; repeat it.", rich_help_panel=_IN
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN", help="Without these files and folders.", rich_help_panel=_IN
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
            help="A file: .txt .tsv .jsonl .json .csv .parquet .srt .vtt. The same command goes on "
            "where it was stopped.",
            rich_help_panel=_OUT,
        ),
    ] = None,
    kind: Annotated[
        OutputFormat | None,
        typer.Option("--format", "-f", help="Format, if not by the ending.", rich_help_panel=_OUT),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="One JSON object a line.", rich_help_panel=_OUT),
    ] = False,
    sidecar: Annotated[
        Sidecar | None,
        typer.Option(
            help="A file beside each sound (clip.txt), or in the folder --output.",
            rich_help_panel=_OUT,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start anew.", rich_help_panel=_OUT)
    ] = False,
    failures: Annotated[
        Path | None,
        typer.Option(
            help="Record of the files that failed; default: <output>.failed.jsonl.",
            rich_help_panel=_OUT,
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(help="A pocket model, or a model folder.", rich_help_panel=_SEARCH)
    ] = "pocket-lamb",
    beam: Annotated[
        int | None,
        typer.Option(min=1, help="Beams of the search.", rich_help_panel=_SEARCH),
    ] = None,
    n_best: Annotated[
        int | None,
        typer.Option(
            "--n-best", "-n", min=1, help="Captions a sound, best first.", rich_help_panel=_SEARCH
        ),
    ] = None,
    sample: Annotated[
        bool,
        typer.Option(
            "--sample", help="Draw captions in place of searching.", rich_help_panel=_SEARCH
        ),
    ] = False,
    temperature: Annotated[
        float | None, typer.Option(help="With --sample.", rich_help_panel=_SEARCH)
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(help="With --sample.", rich_help_panel=_SEARCH)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="With --sample.", rich_help_panel=_SEARCH)
    ] = None,
    rerank: Annotated[
        str | None,
        typer.Option(
            metavar="CLAP",
            help="Choose among the n-best with a CLAP: pocket-link, or a folder; or by their "
            "'consensus'.",
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    rerank_weight: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Of --rerank; 1 leaves the captioner's own score out. Default: 0.5, consensus 1.",
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    min_score: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Below this score: 'no distinct sound'; 0: never. Default: the model's own.",
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    silence: Annotated[
        float,
        typer.Option(
            metavar="DB",
            help="Level of the loudest 0.1 s, dB of full scale, below which there is no sound.",
            rich_help_panel=_SEARCH,
        ),
    ] = -60.0,
    timed: Annotated[
        bool,
        typer.Option(
            "--timed",
            help="Times for short sounds, too; srt and vtt imply it.",
            rich_help_panel=_LONG,
        ),
    ] = False,
    window: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Length of a window (10); implies --timed.",
            rich_help_panel=_LONG,
        ),
    ] = None,
    hop: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="From one window to the next; default: the window, without overlap.",
            rich_help_panel=_LONG,
        ),
    ] = None,
    whole: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Caption sounds up to this length as a whole; default 30, timed 1.5 windows.",
            rich_help_panel=_LONG,
        ),
    ] = None,
    merge: Annotated[
        Path | None,
        typer.Option(
            metavar="SPEECH",
            help="Put the sounds, as \\[dog barks], between the lines of this SRT or VTT file.",
            rich_help_panel=_LONG,
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.", rich_help_panel=_RUN)
    ] = "auto",
    precision: Annotated[
        Precision, typer.Option(help="Arithmetic of the model.", rich_help_panel=_RUN)
    ] = Precision.fp32,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Windows at once; default: what fits.", rich_help_panel=_RUN),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress; errors only.", rich_help_panel=_RUN)
    ] = False,
) -> None:
    """Says in a sentence what is heard in a sound.

    One file prints its caption; several print 'file<TAB>caption'. Sounds over
    30 s give a line for each stretch. A file that cannot be read is reported,
    the others go on, and the exit code is 1.

    Examples:

      earwitness caption dog.wav

      earwitness caption recordings/ -o captions.csv

      earwitness caption film.mp4 -o sounds.srt

      earwitness caption film.mp4 --merge speech.srt -o film.srt

      find . -name '*.flac' | earwitness caption --manifest - --json
    """
    from earwitness.captioning.sources import parse_shard
    from earwitness.captioning.sources import shard as part_of

    draws = {"temperature": temperature, "top_p": top_p, "seed": seed}
    _check_usage(files, manifest, column, output, kind, as_json, sidecar, merge)
    _check_search(sample, beam, draws)
    if rerank_weight is not None and rerank is None:
        raise typer.BadParameter("needs --rerank", param_hint="--rerank-weight")
    if shard and output and not sidecar:
        i, n = parse_shard(shard)
        output = output.with_name(f"{output.stem}-{i}-of-{n}{output.suffix}")
    written = output_format(output, kind, as_json, sidecar, merge)
    sources = list_sources(files, manifest, column, include, exclude)
    if written in ("srt", "vtt") and not sidecar and len(sources) > 1:
        raise ConfigError(
            f"{written} holds the subtitles of one sound, not of {len(sources)}; "
            f"--sidecar {written} writes a file for each"
        )
    speech = read_speech(merge)
    listening = listening_of(
        timed or written in ("srt", "vtt"), window, hop, whole, silence, min_score, precision
    )
    changes = {"beam_size": beam, "n_best": n_best, "sample": sample or None, **draws}
    changes = {key: value for key, value in changes.items() if value is not None}
    talk = Talk(quiet, len(sources), prints=output is None and not sidecar)
    sink = open_sink(
        written,
        output,
        sidecar,
        overwrite,
        sources,
        speech,
        fingerprint(model, listening, changes, min_score, rerank, rerank_weight),
        talk,
    )
    if shard:
        sources = part_of(sources, shard)
    left = [source for source in sources if source.name not in sink.done]
    record = open_failures(failures, output, sidecar)
    talk.begin(len(left), len(sources) - len(left))
    failed = 0
    try:
        if left:
            captioner = load_model(model, device)
            reranker = load_reranker(rerank, rerank_weight, captioner)
            listening = completed(listening, captioner, changes, min_score, reranker)
            talk.ready()
            failed = _run(captioner, left, listening, batch_size, sink, record, talk)
        sink.finish()
    finally:
        talk.close()
        sink.close()
    talk.end(record.path if record else None, output)
    if failed:
        raise typer.Exit(1)


def _run(
    captioner: "Captioner",
    sources: "list[Source]",
    listening: "Listening",
    batch_size: int | None,
    sink: "Sink",
    failures: "Failures | None",
    talk: Talk,
) -> int:
    """Captions the sources into the sink; the number of them that failed."""
    from earwitness.captioning.local import caption_files

    failed = 0
    arriving = caption_files(
        captioner, sources, listening, batch_size=batch_size, on_seconds=talk.heard
    )
    try:
        for heard in arriving:
            good = [one for one in heard if one.error is None]
            sink.add([one.record(captioner.name) for one in good])
            for one in heard:
                if one.error is not None:
                    failed += 1
                    talk.problem(str(one.error))
                    if failures is not None:
                        failures.add(one.name, str(one.error))
            talk.done(len(heard), len(heard) - len(good))
    except KeyboardInterrupt:
        talk.stopped()
        raise typer.Exit(130) from None
    finally:
        arriving.close()
    return failed


def _check_usage(
    files: list[str] | None,
    manifest: str | None,
    column: str | None,
    output: Path | None,
    kind: OutputFormat | None,
    as_json: bool,
    sidecar: Sidecar | None,
    merge: Path | None,
) -> None:
    if bool(files) == bool(manifest):
        raise typer.BadParameter("give files or --manifest", param_hint="FILE")
    if column and not manifest:
        raise typer.BadParameter("belongs to --manifest", param_hint="--column")
    if as_json and (kind or sidecar):
        raise typer.BadParameter("is --format jsonl; give one of them", param_hint="--json")
    if sidecar and kind:
        raise typer.BadParameter("and --sidecar both name a format", param_hint="--format")
    if merge and (sidecar or as_json or (kind and kind.value not in ("srt", "vtt"))):
        raise typer.BadParameter("gives srt or vtt, no other format", param_hint="--merge")
    if sidecar and "-" in (files or []):
        raise typer.BadParameter("standard input has no place for one", param_hint="--sidecar")
    if sidecar and output and output.is_file():
        raise typer.BadParameter(f"{output} is a file; a folder is expected", param_hint="--output")


def _check_search(sample: bool, beam: int | None, draws: dict[str, Any]) -> None:
    for name, value in draws.items():
        if value is not None and not sample:
            raise typer.BadParameter("needs --sample", param_hint=f"--{name.replace('_', '-')}")
    if sample and beam is not None:
        raise typer.BadParameter("and --sample exclude each other", param_hint="--beam")
