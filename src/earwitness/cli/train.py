"""`earwitness train`: one recipe, one run."""

from pathlib import Path
from typing import Annotated

import typer

from earwitness.config import recipe_file, recipe_names


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A recipe: a TOML file, or the name of a shipped one, such as tiny.",
            autocompletion=recipe_names,
        ),
    ],
    run: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the run; default: runs/<recipe name>. An interrupted run continues."
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of sounds and captions; overrides the recipe's.")
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a key. Repeatable."),
    ] = None,
) -> None:
    """Trains a model from a recipe.

    The run folder holds log.jsonl (losses and scores), TensorBoard files, the last checkpoint, and
    the best and last weights. The same command continues an interrupted run.

    Examples:

        earwitness train tiny

        earwitness train mine.toml --data data --set fit.epochs=4
    """
    from earwitness.training.stages import run_recipe

    path = recipe_file(recipe)
    scores = run_recipe(path, run or Path("runs") / path.stem, change, data)
    for name, value in scores.items():
        typer.echo(f"{name}\t{value:.4f}")
