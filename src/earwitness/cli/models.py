"""`earwitness models`: shipped models, weights on the hub, model cards."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from earwitness.errors import CheckpointError
from earwitness.models.names import POCKET_MODELS, model_folder, weights_version


class _ListByDefault(TyperGroup):
    """Without a command, runs `list`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args or ["list"])


app = typer.Typer(cls=_ListByDefault)

Model = Annotated[
    str,
    typer.Argument(
        help="A pocket model, a model folder, or owner/name on the Hugging Face hub.",
        autocompletion=lambda: POCKET_MODELS,
    ),
]


@app.command("list")
def models() -> None:
    """Lists the models that ship with earwitness; `earwitness models` alone does the same."""
    for name in POCKET_MODELS:
        try:
            folder = model_folder(name)
        except CheckpointError:
            typer.echo(f"{name}\tnot in this installation")
            continue
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        card = json.loads((folder / "earwitness.json").read_text(encoding="utf-8")).get("card", {})
        version = weights_version(folder)
        typer.echo(f"{name}\t{version}\t{size / 1e6:.1f} MB\t{card.get('summary', '')}\t{folder}")


@app.command()
def fetch(
    names: Annotated[
        list[str],
        typer.Argument(help="owner/name or owner/name@revision on the Hugging Face hub."),
    ],
) -> None:
    """Downloads weights from the Hugging Face hub into this machine's cache.

    Prints each name with its commit and its folder. Later uses of the name, also on
    offline machines that share the cache (HF_HOME), find it there.

    Example:

        earwitness models fetch mispeech/ced-base TinyLlama/TinyLlama-1.1B-Chat-v1.0
    """
    from earwitness.models.hub import hub_part, resolve

    for name in names:
        folder = resolve(name)
        typer.echo(f"{hub_part(folder) or name}\t{folder}")


@app.command()
def card(model: Model) -> None:
    """Prints the card of a model: scores, parts, training, data, license, limits.

    Examples:

        earwitness models card pocket-lamb

        earwitness models card runs/lamb/best > runs/lamb/best/README.md
    """
    from earwitness.models.card import model_card

    typer.echo(model_card(model_folder(model)), nl=False)


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="A model folder.")],
    repo: Annotated[str, typer.Argument(help="owner/name on the Hugging Face hub.")],
    private: Annotated[
        bool, typer.Option("--private", help="Make a new repository private.")
    ] = False,
    revision: Annotated[
        str | None, typer.Option(help="Branch to upload to; default: main.")
    ] = None,
) -> None:
    """Uploads a model folder to the Hugging Face hub and prints its name there.

    Writes a model card, README.md, if the folder has none.

    Example:

        earwitness models push runs/lamb/best ada/lamb-audiocaps --private
    """
    from earwitness.models import hub
    from earwitness.models.card import write_card

    if not (folder / "README.md").is_file():
        write_card(folder)
    typer.echo(hub.push(folder, repo, private=private or None, revision=revision))
