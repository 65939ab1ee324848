"""Training that starts from a finished model: its settings must be those of the recipe."""

import json
from pathlib import Path
from typing import Any

from earwitness.errors import ConfigError
from earwitness.models.weights import read_json
from earwitness.system.settings import CaptionerConfig, read_config

_FREE = {"prefix.dropout", "guide.beta", "prefix.bridge.dropout"}
"""settings that shape neither the weights nor what they mean"""

_PROMPT = ("layout", "instruction")
"""settings of the language model that its weights were trained with"""


def check_same_model(config: CaptionerConfig, model: Path) -> None:
    """Checks that the weights in the model folder `model` mean the same under `config`.

    Weights can fit in shape and still be wrong: with other heads or another guide metric, training
    would start from an untrained state. Decoding, dropout, losses and what is tuned may
    differ.

    Raises:
        ConfigError: naming the first key that differs.
    """
    path = model / "earwitness.json"
    here, there = _meaning(config), _meaning(read_config(read_json(path), path))
    for key in sorted(here.keys() | there.keys()):
        ours, theirs = here.get(key), there.get(key)
        if ours == theirs:
            continue
        advice = "leave 'init' out" if theirs is None else f"set model.{key} = {theirs}"
        raise ConfigError(
            f"model.{key} is {ours or 'not set'}, the model in {model} has {theirs or 'none'}, and "
            f"its weights mean something only with that; {advice}, or start from another model"
        )


def _meaning(config: CaptionerConfig) -> dict[str, str]:
    """The settings that must agree, by their dotted keys, as TOML writes them; a part that is left
    out is "off".
    """
    found: dict[str, Any] = {}
    for part in ("guide", "aligner"):
        found[part] = "on" if getattr(config, part) else "off"
    found |= _flat(config.prefix.model_dump(mode="json"), "prefix")
    found |= _flat(config.guide.model_dump(mode="json"), "guide") if config.guide else {}
    found |= {f"decoder.{key}": getattr(config.decoder, key) for key in _PROMPT}
    return {key: json.dumps(value) for key, value in found.items() if key not in _FREE}


def _flat(settings: dict[str, Any], prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}.{key}"
        found |= _flat(value, name) if isinstance(value, dict) else {name: value}
    return found
