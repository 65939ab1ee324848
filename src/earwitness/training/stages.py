"""The stages of training by name, and the one call that runs a recipe."""

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from earwitness.config import apply_overrides, read_toml, validate
from earwitness.errors import ConfigError
from earwitness.plugins import plugins
from earwitness.training.distributed import main_process_first
from earwitness.training.recipe import StageRecipe


# Each stage is imported when a recipe asks for it: some bring scipy, peft or evaluation with them.
def _language_model() -> type[StageRecipe]:
    from earwitness.training.language_model import LanguageModelRecipe

    return LanguageModelRecipe


def _lamb() -> type[StageRecipe]:
    from earwitness.training.lamb import LambRecipe

    return LambRecipe


def _contrastive() -> type[StageRecipe]:
    from earwitness.training.contrastive import ContrastiveRecipe

    return ContrastiveRecipe


def _bridge() -> type[StageRecipe]:
    from earwitness.training.bridge import BridgeRecipe

    return BridgeRecipe


def _link() -> type[StageRecipe]:
    from earwitness.training.link import LinkRecipe

    return LinkRecipe


def _audio_language() -> type[StageRecipe]:
    from earwitness.training.audio_language import AudioLanguageRecipe

    return AudioLanguageRecipe


STAGES: dict[str, Callable[[], type[StageRecipe]]] = {
    "language_model": _language_model,
    "lamb": _lamb,
    "contrastive": _contrastive,
    "bridge": _bridge,
    "link": _link,
    "audio_language": _audio_language,
}


def recipe_class(stage: object, source: str) -> type[StageRecipe]:
    """The recipes of a stage of this package, or of one that another package registered.

    Raises:
        ConfigError: there is no stage of that name.
    """
    added: dict[str, type[StageRecipe]] = plugins("stages")
    if isinstance(stage, str) and stage in STAGES:
        return STAGES[stage]()
    if isinstance(stage, str) and stage in added:
        return added[stage]
    known = ", ".join((*STAGES, *added))
    raise ConfigError(f"{source}: stage {stage!r} is not known; expected one of {known}")


def read_recipe(
    path: Path, overrides: list[str] | None = None, data: Path | None = None
) -> StageRecipe:
    """The recipe at `path`. Raises ConfigError if it is not one.

    The key `data` of any recipe is its folder of sounds and captions; the argument overrides it.
    """
    tables = apply_overrides(read_toml(path), overrides or [])
    found = recipe_class(tables.get("stage"), str(path))
    tables = _with_data(tables, data, str(path))
    _check_losses(tables.get("losses"), found, str(path))
    return validate(found, tables, str(path))


def run_recipe(
    path: Path, folder: Path, overrides: list[str] | None = None, data: Path | None = None
) -> dict[str, float]:
    """Trains the recipe at `path` in the run folder `folder`; the scores of the best weights.

    `data` overrides the recipe's key of that name. On several processes all call this; the
    main one prepares the data, and it alone gets scores.
    """
    recipe = read_recipe(path, overrides, data)
    folder.mkdir(parents=True, exist_ok=True)
    with main_process_first():
        train = recipe.prepare(folder)
    return train()


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


def _check_losses(losses: Any, recipe: type[StageRecipe], path: str) -> None:
    """A stage knows its losses by the default weights of its recipe."""
    field = recipe.model_fields.get("losses")
    if field is None or not isinstance(losses, dict):
        return
    for name in losses:
        if name not in field.default:
            near = difflib.get_close_matches(str(name), field.default, n=1, cutoff=0.4)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ConfigError(
                f"{path}: unknown loss 'losses.{name}'{hint} (known: {', '.join(field.default)})"
            )
