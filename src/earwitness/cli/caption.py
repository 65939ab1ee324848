"""`earwitness caption`: files, folders and hours of sound in; captions out."""

import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from earwitness.errors import ConfigError, DataError

if TYPE_CHECKING:
    from earwitness.captioner import Captioner
    from earwitness.decoder import Decoding
    from earwitness.engines.local import Listening
    from earwitness.engines.sinks import Sink
    from earwitness.engines.sources import Source
    from earwitness.subtitles import Subtitles


class OutputFormat(str, Enum):
    """What is written."""

    text = "text"
    jsonl = "jsonl"
    json = "json"
    csv = "csv"
    parquet = "parquet"
    srt = "srt"
    vtt = "vtt"


class Sidecar(str, Enum):
    """What is written beside each sound."""

    txt = "txt"
    json = "json"
    srt = "srt"
    vtt = "vtt"


class Precision(str, Enum):
    """Number format of the model's arithmetic."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


_IN, _OUT, _SEARCH, _LONG, _RUN = "Input", "Output", "Captions", "Long sounds", "Running"


def caption(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE...",
            help="Sound or video files, folders, globs, or - for a sound on standard input.",
            show_default=False,
        ),
    ] = None,
    manifest: Annotated[
        str | None,
        typer.Option(
            help="Take the files from a CSV, TSV, JSONL, parquet or text file; - reads paths, a line "
            "each, from standard input.",
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
        typer.Option("--sample", help="Draw captions in place of searching.", rich_help_panel=_SEARCH),
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
    min_score: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Below this score: 'no distinct sound'. Default: the model's own.",
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
            "--timed", help="Times for short sounds, too; srt and vtt imply it.", rich_help_panel=_LONG
        ),
    ] = False,
    window: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", help="Length of a window (10); implies --timed.", rich_help_panel=_LONG
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
            help="Put the sounds, as [dog barks], between the lines of this SRT or VTT file.",
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
    given = _Given(dict(locals()))
    given.check()
    sources = given.sources()
    speech = given.speech()
    captioner_settings = _decoding_changes(given)
    raise NotImplementedError
