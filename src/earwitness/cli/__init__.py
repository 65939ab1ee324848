"""The `earwitness` command. One module per command; each imports what it needs when it runs."""

import os
import shlex
from contextlib import suppress
from importlib.metadata import version as _installed_version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from earwitness.cli import streams
from earwitness.cli.caption import caption
from earwitness.cli.doctor import doctor
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
from earwitness.errors import CheckpointError, EarwitnessError, pip_install
from earwitness.io.shipped import shipped
from earwitness.plugins import plugins

_TRAINING = ("torch", "transformers", "peft", "accelerate", "einops", "safetensors", "onnx")
"""packages that captioning does not need; the extra `train` installs them"""


class _App(typer.Typer):
    """A Typer application in which an `EarwitnessError` is one line on stderr and exit code 1."""

    def __call__(self, *args: object, **kwargs: object) -> object:
        # Torch threads that spin while waiting make a busy machine three times slower.
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
            streams.fail(f"this needs {package}: {pip_install('train')}")
            raise SystemExit(1) from None


_WELCOME = """\
{version} turns any sound into a sentence.

  earwitness caption {sound}
      a sentence for one sound
  earwitness caption film.mp4 -o sounds.srt
      subtitles for hours of sound; folders go to CSV, JSON or parquet
  earwitness serve
      a web page and an HTTP service on this machine

earwitness --help lists all commands; earwitness doctor says what is installed;
earwitness --install-completion completes commands and options with Tab.
"""


class _Welcoming(TyperGroup):
    """Without arguments, shows what the program is for."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            examples = shipped("examples")
            sound = shlex.quote(str(_near(examples / "siren.flac"))) if examples else "sound.wav"
            typer.echo(_WELCOME.format(version=_version(), sound=sound), nl=False)
            ctx.exit()
        return super().parse_args(ctx, args)


def _near(path: Path) -> Path:
    """The path relative to the working directory, if it is below it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


app = _App(
    name="earwitness",
    cls=_Welcoming,
    help="Turns any sound into a sentence.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version() -> str:
    return f"earwitness {_installed_version('earwitness')}"


def _print_version(wanted: bool) -> bool:
    if wanted:
        from earwitness.models.names import POCKET_MODELS, model_folder, weights_version

        typer.echo(_version())
        for name in POCKET_MODELS:
            with suppress(CheckpointError):
                typer.echo(f"{name} {weights_version(model_folder(name))}")
        raise typer.Exit
    return wanted


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version, and the versions of the models' weights.",
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
app.command(context_settings={"auto_envvar_prefix": "EARWITNESS"})(serve)
app.command()(page)
app.command()(doctor)
app.add_typer(models, name="models", help="Shipped models, weights on the hub, and model cards.")
app.add_typer(metrics, name="metrics", help="What caption metrics need on this machine.")
app.add_typer(prepare, name="prepare", help="Turns data sets on disk into training manifests.")
for _name, _command in plugins("commands").items():
    app.command(_name)(_command)
