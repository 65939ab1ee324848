"""Audio-language models with LoRA weights (arXiv 2106.09685), stored as an ordinary peft folder
that names its base model.

LoRA is applied to the language model only; the audio encoder is unchanged.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field
from torch import nn

from earwitness.config import Strict
from earwitness.errors import ConfigError, MissingDependencyError, pip_install
from earwitness.models.foreign import check_files, foreign_errors
from earwitness.models.hub import resolve
from earwitness.models.json_files import read_json, read_settings
from earwitness.system.decoder import LoraConfig, with_lora
from earwitness.system.lora import SETTINGS, load_lora

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_PART = "language_model"
"""what transformers calls the language model in all of these kinds"""


class _Saved(Strict):
    """The settings read from a peft folder; all others must have peft's defaults."""

    base_model_name_or_path: str = Field(min_length=1)
    revision: str | None
    r: int = Field(gt=0, le=4096)
    lora_alpha: int = Field(gt=0)
    target_modules: tuple[str, ...] = Field(min_length=1)


def is_tuned(folder: Path) -> bool:
    """Whether `folder` holds LoRA weights for another model rather than a model."""
    return (folder / SETTINGS).is_file() and not (folder / "config.json").exists()


def base_folder(folder: Path) -> Path:
    """The folder of the base model of LoRA weights, fetched from the hub if it is not local.

    Raises:
        CheckpointError: there is no such model, or the settings in `folder` are damaged.
    """
    check_files(folder)
    saved = _saved(folder)
    at = f"@{saved.revision}" if saved.revision else ""
    return resolve(f"{saved.base_model_name_or_path}{at}")


def with_saved_lora(model: "PreTrainedModel", folder: Path) -> "PreTrainedModel":
    """`model` with the LoRA weights in `folder` added to its layers.

    Raises:
        CheckpointError: they do not fit the model. MissingDependencyError: peft is not installed.
    """
    saved = _saved(folder)
    size = LoraConfig(r=saved.r, alpha=saved.lora_alpha, targets=saved.target_modules, dropout=0.0)
    with foreign_errors(folder, "LoRA weights of this model"):
        wrapped = tuned(model, size)
        load_lora(wrapped, folder, "earwitness reads such weights")
    return model.eval()


def on_language_model(model: "PreTrainedModel", size: LoraConfig) -> LoraConfig:
    """`size` with the full names of its layers: only those of the language model.

    Raises:
        ConfigError: the language model has no layer with such a name.
    """
    layers = [
        name for name, part in model.named_modules()
        if isinstance(part, nn.Linear) and _PART in name.split(".")
    ]  # fmt: skip
    chosen = [name for name in layers if name.rpartition(".")[2] in size.targets]
    if not chosen:
        known = ", ".join(sorted({name.rpartition(".")[2] for name in layers}))
        raise ConfigError(
            f"lora.targets: the language model has no {', '.join(size.targets)}; it has {known}"
        )
    return size.model_copy(update={"targets": tuple(chosen)})


def tuned(model: "PreTrainedModel", size: LoraConfig) -> Any:
    """peft's wrapper of `model`, with new LoRA weights that do not change its output yet.

    Raises:
        MissingDependencyError: peft is not installed.
    """
    try:
        return with_lora(model.requires_grad_(False), size)
    except ImportError:
        raise MissingDependencyError(f"LoRA weights need peft: {pip_install('train')}") from None


def _saved(folder: Path) -> _Saved:
    path = folder / SETTINGS
    stored = read_json(path)
    return read_settings(_Saved, {name: stored.get(name) for name in _Saved.model_fields}, path)
