"""`earwitness events`: which sounds happen when."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from earwitness.captioning.options import option_help


class Form(StrEnum):
    """What is written."""

    json = "json"
    csv = "csv"
    labels = "labels"
    srt = "srt"


def events(
    files: Annotated[
        list[str], typer.Argument(metavar="FILES", help="Files, folders, globs; - for stdin.")
    ],
    model: Annotated[str, typer.Option(help="A model whose encoder has a class head.")] = (
        "pocket-lamb"
    ),
    threshold: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Minimum probability of an event.")
    ] = 0.5,
    track: Annotated[
        str | None,
        typer.Option(metavar="N|LANGUAGE", help=option_help("track")),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Output file; default: standard output.")
    ] = None,
    form: Annotated[
        Form | None,
        typer.Option(
            "--format",
            help="json (one line per file), csv, labels (for Audacity) or srt. Default: from the "
            "extension of the output (.json, .csv, .txt, .srt), else json.",
        ),
    ] = None,
) -> None:
    """Finds the sounds in files, with their AudioSet names and their start and end times.

    Times are in steps of 160 ms. A class is reported where its probability in the second around
    it reaches the threshold; short or quiet sounds under a louder one are missed. Labels and SRT
    hold the events of one file.

    Examples:

        earwitness events street.wav

        earwitness events street.wav -o street.txt      # labels for Audacity

        earwitness events recordings/ -o events.csv --threshold 0.7
    """
    from earwitness.captioning.captioner import sound_classes
    from earwitness.captioning.events import CSV_HEAD, written
    from earwitness.captioning.sources import find
    from earwitness.errors import ConfigError, DataError, EarwitnessError
    from earwitness.io.atomic import write_text
    from earwitness.io.names import for_terminal
    from earwitness.models.sound_events import events_in

    endings = {".csv": Form.csv, ".txt": Form.labels, ".srt": Form.srt}
    chosen = form or endings.get(output.suffix.lower() if output else "", Form.json)
    sources = find(files, [], [])
    if len(sources) > 1 and chosen in (Form.labels, Form.srt):
        raise ConfigError(f"{chosen} holds the events of one file, got {len(sources)} files")
    classes = sound_classes(model)

    def say(sentence: str) -> None:
        print(for_terminal(f"earwitness: {sentence}"), file=sys.stderr)

    text, failed = [CSV_HEAD] if chosen is Form.csv else [], 0
    for source in sources:
        try:
            found = events_in(classes, source.audio, threshold, track=track, note=say)
        except EarwitnessError as error:
            say(str(error))
            failed += 1
            continue
        text.append(written(source.name, found, chosen.value))
    if output is None:
        sys.stdout.write("".join(text))
    else:
        write_text(output, "".join(text), DataError)
    if failed:
        raise typer.Exit(1)
