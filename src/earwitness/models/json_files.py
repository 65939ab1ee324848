"""The JSON files of a model folder: written whole, read strictly. Needs no torch."""

import json
import math
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel

from earwitness.config import validate
from earwitness.errors import CheckpointError, ConfigError
from earwitness.io.atomic import write_text
from earwitness.io.kinds import is_list, is_object

Model = TypeVar("Model", bound=BaseModel)

_LONGEST = 256 * 2**20
"""bytes; the largest tokenizers on the hub have 35 MB"""
_LARGEST = 2**24
"""of a whole-number setting"""
_LAYERS = dict.fromkeys(("depth", "layers", "gru_layers", "blocks"), 1000)
_SEARCH = {"beam_size": 256, "n_best": 256, "max_new_tokens": 4096, "draws": 1000, "steps": 10_000}
_FRONT_END = {"n_fft": 65_536, "n_mels": 1024, "sample_rate": 768_000, "diffusion_steps": 100_000}
_CLAP = {"fft_window_size": 65_536, "feature_size": 1024, "sampling_rate": 768_000}
_CLAP_LENGTHS = {"max_length_s": 3600, "chunk_length_s": 3600, "top_db": 1000}
_MOST = _LAYERS | _SEARCH | _FRONT_END | _CLAP | _CLAP_LENGTHS
"""settings that cost time or memory before any weight could be compared, or in every caption"""
_LISTS = {"dilations": 64, "kernels": 64, "targets": 64}
"""settings whose every entry is a layer, or an adapter on every layer"""


def write_json(path: Path, value: dict[str, Any], compact: bool = False) -> None:
    """Writes `value`, indented, atomically: a reader never sees half a file; `compact`: one line
    per key, however long its value.
    """
    if compact:
        lines = (f"  {json.dumps(key)}: {json.dumps(part)}" for key, part in value.items())
        text = "{\n" + ",\n".join(lines) + "\n}"
    else:
        text = json.dumps(value, indent=2)
    write_text(path, text + "\n", CheckpointError)


def read_json(path: Path) -> dict[str, Any]:
    """The object in `path`. Raises CheckpointError if it is missing, damaged, not an object, or
    holds a number that is not finite.
    """
    value = read_any_json(path)
    if not is_object(value):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def read_any_json(path: Path) -> Any:
    """The value in `path`, as strict as `read_json`."""
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path}: expected a JSON file, found a folder or a device")
    try:
        size = path.stat().st_size
        if size > _LONGEST:
            raise ValueError(f"{size} bytes, expected at most {_LONGEST}")
        text = path.read_text(encoding="utf-8")
        value = json.loads(text, parse_float=_finite, parse_constant=_not_finite)
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; a model folder must hold it") from None
    except UnicodeEncodeError:
        raise CheckpointError(f"{path}: not readable as JSON (half a character)") from None
    except RecursionError:
        raise CheckpointError(f"{path}: not readable as JSON (nested too deeply)") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not readable as JSON ({error})") from None


def read_settings(model: type[Model], value: Any, source: Path, *, builds: bool = True) -> Model:
    """`value`, a part of the JSON file `source`, as a `model`. Raises CheckpointError if it does
    not fit, or a network that it `builds` would be larger than any there is.
    """
    if not is_object(value):
        raise CheckpointError(f"{source}: expected settings, found {type(value).__name__}")
    if builds:
        check_sizes(value, source)
    try:
        return validate(model, value, str(source))
    except ConfigError as error:
        raise CheckpointError(str(error)) from None


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is not a finite number")
    return number


def _not_finite(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a finite number")


def check_sizes(value: Any, source: Path, key: str = "") -> None:
    """Raises CheckpointError if a size in the settings `value` is beyond all reason: building a
    network of it would take all memory, or forever, before its weights could be compared.
    """
    if is_object(value):
        for name, inner in value.items():
            check_sizes(inner, source, name)
    elif is_list(value):
        if len(value) > (longest := _LISTS.get(key, _LARGEST)):
            raise CheckpointError(
                f"{source}: {key} has {len(value)} entries; expected at most {longest}"
            )
        for inner in value:
            check_sizes(inner, source, key)
    elif isinstance(value, int | float) and (key in _MOST or isinstance(value, int)):
        most = _MOST.get(key, _LARGEST)
        if abs(value) > most and key != "seed":
            # Python refuses to print a number of thousands of digits.
            shown = str(value) if abs(value) < 10**20 else "a number of more than 20 digits"
            raise CheckpointError(f"{source}: {key} is {shown}; expected at most {most}")
