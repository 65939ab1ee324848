"""The JSON files of a model folder: written whole, read strictly. Needs no torch."""

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from earwitness.config import validate
from earwitness.errors import CheckpointError, ConfigError
from earwitness.io.atomic import replacing

Model = TypeVar("Model", bound=BaseModel)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes `value`, indented. Raises CheckpointError where it cannot be written."""
    with replacing(path, CheckpointError) as file:
        file.write((json.dumps(value, indent=2) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """The object in `path`. Raises CheckpointError if it is missing, damaged, or not an object."""
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
    """`value`, part of the JSON file `source`, as a `model`. Raises CheckpointError if it does not
    fit.
    """
    if not isinstance(value, dict):
        raise CheckpointError(f"{source}: expected settings, found {type(value).__name__}")
    try:
        return validate(model, value, str(source))
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
