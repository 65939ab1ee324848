"""The stages of training by name, and the one call that runs a recipe."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from earwitness.config import apply_overrides, read_toml, validate
from earwitness.errors import ConfigError

STAGES: dict[str, tuple[str, str]] = {
    "distill": ("earwitness.training.distill", "DistillRecipe"),
    "language_model": ("earwitness.training.language_model", "LanguageModelRecipe"),
    "lamb": ("earwitness.training.lamb", "LambRecipe"),
    "contrastive": ("earwitness.training.contrastive", "ContrastiveRecipe"),
    "bridge": ("earwitness.training.bridge", "BridgeRecipe"),
    "link": ("earwitness.training.link", "LinkRecipe"),
}
"""stage -> (module, name of its recipe class); the module's `run(recipe, folder)` trains."""


def read_recipe(path: Path, overrides: list[str] | None = None) -> tuple[Any, Any]:
    """(module, recipe) of the recipe at `path`. Raises ConfigError where it is not one."""
    tables = apply_overrides(read_toml(path), overrides or [])
    stage = tables.get("stage")
    if stage not in STAGES:
        raise ConfigError(
            f"{path}: stage {stage!r} is not known; expected one of {', '.join(STAGES)}"
        )
    module_name, class_name = STAGES[stage]
    module = import_module(module_name)
    return module, validate(getattr(module, class_name), tables, str(path))


def run_recipe(
    path: Path, folder: Path, overrides: list[str] | None = None, data: Path | None = None
) -> dict[str, float]:
    """Trains the recipe at `path` in the run folder `folder`; the scores of the best weights.

    `data` takes the place of the recipe's data folder: of `source.folder` where its source is
    scenes, else of `data`.
    """
    overrides = list(overrides or [])
    if data is not None:
        key = "source.folder" if "source" in read_toml(path) else "data"
        overrides.append(f"{key}={json.dumps(str(data), ensure_ascii=False)}")
    module, recipe = read_recipe(path, overrides)
    folder.mkdir(parents=True, exist_ok=True)
    return module.run(recipe, folder)
