"""`earwitness models`: what can be named without a folder."""

import json

import typer

from earwitness.errors import CheckpointError


def models() -> None:
    """Lists the models that ship with earwitness."""
    from earwitness.pocket import POCKET_MODELS, model_folder

    for name in POCKET_MODELS:
        try:
            folder = model_folder(name)
        except CheckpointError:
            typer.echo(f"{name}\tnot in this installation")
            continue
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        card = json.loads((folder / "earwitness.json").read_text(encoding="utf-8")).get("card", {})
        typer.echo(f"{name}\t{size / 1e6:.1f} MB\t{card.get('summary', '')}\t{folder}")
