"""The `earwitness` command. One module per command; each imports what it needs when it runs."""

import os
from importlib.metadata import version as _installed_version
from typing import Annotated

import typer

from earwitness.cli import streams
from earwitness.cli.caption import caption
from earwitness.cli.evaluate import evaluate
from earwitness.cli.events import events
from earwitness.cli.export import export
from earwitness.cli.gap import gap
from earwitness.cli.listen import listen
from earwitness.cli.metrics import app as metrics
from earwitness.cli.models import app as models
from earwitness.cli.page import page
from earwitness.cli.prepare import app as prepare
from earwitness.cli.serve import serve
from earwitness.cli.train import train
from earwitness.errors import EarwitnessError
from earwitness.plugins import plugins

_TRAINING = ("torch", "transformers", "peft", "accelerate", "einops", "safetensors", "onnx")
"""packages that captioning does without; the extra `train` brings them"""


class _App(typer.Typer):
    """A Typer application in which an `EarwitnessError` is one line on stderr and exit code 1."""

    def __call__(self, *args: object, **kwargs: object) -> object:
        # Threads of torch that spin while they wait make a busy machine three times slower.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        streams.open_closed()
        try:
            return super().__call__(*args, **kwargs)
        except EarwitnessError as error:
            streams.fail(str(error))
            raise SystemExit(1) from None
        except OSError as error:
            streams.fail(streams.reason(error))
            raise SystemExit(1) from None
        except ModuleNotFoundError as error:
            package = str(error.name).partition(".")[0]
            if package not in _TRAINING:
                raise
            streams.fail(f"this needs {package}: pip install 'earwitness[train]'")
            raise SystemExit(1) from None


app = _App(
    name="earwitness",
    help="Turns any sound into a sentence.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"earwitness {_installed_version('earwitness')}")
        raise typer.Exit
    return wanted


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


app.command()(caption)
app.command()(events)
app.command()(listen)
app.command()(train)
app.command()(evaluate)
app.command()(export)
app.command()(gap)
app.command()(serve)
app.command()(page)
app.add_typer(models, name="models", help="Models that ship, weights of the hub, and model cards.")
app.add_typer(metrics, name="metrics", help="What caption metrics need on this machine.")
app.add_typer(prepare, name="prepare", help="Turns data sets on disk into manifests to train on.")
for _name, _command in plugins("commands").items():
    app.command(_name)(_command)
