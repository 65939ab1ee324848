"""LoRA weights over a model of transformers as an ordinary peft folder, every key accounted for."""

from pathlib import Path
from typing import Any

from earwitness.errors import CheckpointError, ConfigError
from earwitness.models.hub import HubPart
from earwitness.models.tensors import check_numbers, stored_tensors
from earwitness.models.weights import check_finite, read_json, read_weights

SETTINGS, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""the files of a peft folder"""

_KEYS = (
    *("peft_type", "r", "lora_alpha", "target_modules", "bias", "use_dora", "use_rslora"),
    *("rank_pattern", "alpha_pattern", "layers_to_transform", "modules_to_save"),
)
"""settings of a peft folder that change what the model says"""


def save_lora(model: Any, folder: Path, base: HubPart | Path | None) -> None:
    """Writes the LoRA weights of peft's wrapper `model`; `base` is the model they belong to."""
    settings = model.peft_config["default"]
    at_commit = isinstance(base, HubPart)
    settings.base_model_name_or_path = base.hub if at_commit else base and str(base)
    settings.revision = base.revision if at_commit else None
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)


def load_lora(model: Any, folder: Path, asked_by: str) -> None:
    """Loads the LoRA weights of a peft folder into peft's wrapper `model`.

    Raises:
        ConfigError: the folder has other settings than `model`; `asked_by` names where those are.
        CheckpointError: a weight is missing, unknown, of another shape, or not finite.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    saved = read_json(folder / SETTINGS)
    wanted = model.peft_config["default"].to_dict()
    for key in _KEYS:
        if _comparable(saved.get(key)) != _comparable(wanted.get(key)):
            raise ConfigError(
                f"{folder / SETTINGS}: {key} is {saved.get(key)!r}, {asked_by} for "
                f"{_comparable(wanted.get(key))!r}"
            )
    path = folder / WEIGHTS
    state = read_weights(path)
    check_numbers(path, stored_tensors(path))
    own = get_peft_model_state_dict(model, save_embedding_layers=False)
    for name in sorted({*own, *state}):
        if name not in state or name not in own:
            problem = "is missing" if name in own else "is unknown"
            raise CheckpointError(f"{path}: weight '{name}' {problem}")
        if own[name].shape != state[name].shape:
            raise CheckpointError(
                f"{path}: weight '{name}' has shape {tuple(state[name].shape)}, "
                f"expected {tuple(own[name].shape)}"
            )
    check_finite(state, str(path))
    set_peft_model_state_dict(model, state)


def _comparable(value: Any) -> Any:
    value = getattr(value, "value", value)
    if isinstance(value, list | set | tuple):
        return sorted(value)
    return value or None
