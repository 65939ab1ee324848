"""The JSON files of a model folder: written whole, read strictly. Needs no torch."""

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from earwitness.config import validate
from earwitness.errors import CheckpointError, ConfigError
from earwitness.io.atomic import write_text

Model = TypeVar("Model", bound=BaseModel)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes `value`, indented, in one step: a reader never meets half a file."""
    write_text(path, json.dumps(value, indent=2) + "\n", CheckpointError)


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
