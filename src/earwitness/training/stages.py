"""The stages of training by name, and the one call that runs a recipe."""

import difflib
from importlib import import_module
from pathlib import Path
from typing import Any

from earwitness.config import apply_overrides, read_toml, validate
from earwitness.errors import ConfigError
from earwitness.plugins import plugins
from earwitness.training.distributed import main_process_first

STAGES: dict[str, tuple[str, str]] = {
    "language_model": ("earwitness.training.language_model", "LanguageModelRecipe"),
    "lamb": ("earwitness.training.lamb", "LambRecipe"),
    "contrastive": ("earwitness.training.contrastive", "ContrastiveRecipe"),
    "bridge": ("earwitness.training.bridge", "BridgeRecipe"),
    "link": ("earwitness.training.link", "LinkRecipe"),
}
"""stage -> (module, name of its recipe class); the module's `run(recipe, folder)` trains."""


def stages() -> dict[str, tuple[str, str]]:
    """All stages by name: those of this package, and those that other packages registered."""
    added = plugins("stages").items()
    return STAGES | {name: (recipe.__module__, recipe.__name__) for name, recipe in added}


def read_recipe(
    path: Path, overrides: list[str] | None = None, data: Path | None = None
) -> tuple[Any, Any]:
    """(module, recipe) of the recipe at `path`. Raises ConfigError where it is not one.

    The key `data` of any recipe is its folder of sounds and captions; the argument takes its place.
    """
    tables = apply_overrides(read_toml(path), overrides or [])
    stage = tables.get("stage")
    known = stages()
    if stage not in known:
        raise ConfigError(
            f"{path}: stage {stage!r} is not known; expected one of {', '.join(known)}"
        )
    module_name, class_name = known[stage]
    module = import_module(module_name)
    recipe_class = getattr(module, class_name)
    tables = _with_data(tables, data, str(path))
    _check_losses(tables.get("losses"), recipe_class, str(path))
    return module, validate(recipe_class, tables, str(path))


def run_recipe(
    path: Path, folder: Path, overrides: list[str] | None = None, data: Path | None = None
) -> dict[str, float]:
    """Trains the recipe at `path` in the run folder `folder`; the scores of the best weights.

    `data` takes the place of the recipe's key of that name. On several processes all call this; the
    main one prepares the data, and it alone gets scores.
    """
    module, recipe = read_recipe(path, overrides, data)
    folder.mkdir(parents=True, exist_ok=True)
    with main_process_first():
        return module.run(recipe, folder)


def _with_data(tables: dict[str, Any], data: Path | None, path: str) -> dict[str, Any]:
    """`tables` with `data` where the stage looks for it: in sources that read a data folder."""
    source = tables.get("source")
    if data is not None:
        tables = {**tables, "data": str(data)}
    if not isinstance(source, dict) or "data" not in tables:
        return tables
    folders = [name for name, kind in plugins("sources").items() if "folder" in kind.model_fields]
    if source.get("kind") not in folders:
        raise ConfigError(
            f"{path}: 'data' is the folder of {' or '.join(folders)}; the source here is "
            f"{source.get('kind')!r}, which needs none"
        )
    kept = {key: value for key, value in tables.items() if key != "data"}
    folder = tables["data"] if data is not None else source.get("folder", tables["data"])
    return {**kept, "source": {**source, "folder": folder}}


def _check_losses(losses: Any, recipe_class: Any, path: str) -> None:
    """A stage knows its losses by the default weights of its recipe."""
    field = recipe_class.model_fields.get("losses")
    if field is None or not isinstance(losses, dict):
        return
    for name in losses:
        if name not in field.default:
            near = difflib.get_close_matches(str(name), field.default, n=1, cutoff=0.4)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ConfigError(
                f"{path}: unknown loss 'losses.{name}'{hint} (known: {', '.join(field.default)})"
            )
