"""Model folders on disk: JSON for settings, safetensors for weights, strict in both directions."""

import json
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from earwitness.config import validate
from earwitness.errors import CheckpointError, ConfigError

Model = TypeVar("Model", bound=BaseModel)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes `value`, indented, in one step: a reader never meets half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(path.suffix + ".new")
    draft.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    draft.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """The object in `path`. Raises CheckpointError where it is missing, damaged, or no object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; a model folder must hold it") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def read_settings(model: type[Model], value: Any, source: Path) -> Model:
    """`value`, a part of the JSON file `source`, as a `model`. Raises CheckpointError where it does
    not fit.
    """
    if not isinstance(value, dict):
        raise CheckpointError(f"{source}: settings expected, found {type(value).__name__}")
    try:
        return validate(model, value, str(source))
    except ConfigError as error:
        raise CheckpointError(str(error)) from None


def write_weights(path: Path, module: nn.Module, dtype: torch.dtype | None = None) -> None:
    """Writes the state of `module`, floating-point tensors as `dtype` where given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        name: (value.to(dtype) if dtype and value.is_floating_point() else value).cpu().contiguous()
        for name, value in module.state_dict().items()
    }
    draft = path.with_suffix(".new")
    save_file(state, draft, metadata={"format": "pt"})
    draft.replace(path)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors in `path`. Raises CheckpointError where it is missing or no whole safetensors
    file.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; weights are read from safetensors only")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged or no safetensors file ({error})") from None


def load_weights(module: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Puts `state` into `module`, every key and shape accounted for.

    Raises:
        CheckpointError: naming the first key that is missing, unknown, of another shape, or not
            finite.
    """
    wanted = module.state_dict()
    for name, tensor in wanted.items():
        if name not in state:
            raise CheckpointError(f"{source}: weight '{name}' is missing")
        if state[name].shape != tensor.shape:
            raise CheckpointError(
                f"{source}: weight '{name}' has shape {tuple(state[name].shape)}, "
                f"expected {tuple(tensor.shape)}"
            )
        if state[name].is_floating_point() != tensor.is_floating_point():
            raise CheckpointError(
                f"{source}: weight '{name}' holds {state[name].dtype}, expected {tensor.dtype}"
            )
    unknown = sorted(set(state) - set(wanted))
    if unknown:
        raise CheckpointError(f"{source}: unknown weight '{unknown[0]}'")
    check_finite(state, source)
    module.load_state_dict(state, strict=True)


def check_finite(state: dict[str, Tensor], source: str) -> None:
    """Raises CheckpointError naming the first tensor of `state` that holds a number that is not
    finite.
    """
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{source}: weight '{name}' holds numbers that are not finite")
