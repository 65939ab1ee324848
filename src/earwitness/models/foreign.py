"""Folders that other libraries load (transformers, tokenizers), checked before they see them, and
their errors in one sentence. Needs no torch.
"""

import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from earwitness.errors import CheckpointError, EarwitnessError, MissingDependencyError, one_line
from earwitness.io.kinds import is_list, is_object
from earwitness.models.json_files import read_any_json, read_json
from earwitness.models.tensors import (
    Stored,
    check_inside,
    check_numbers,
    stored_tensors,
    weight_files,
)

_READ = (".json", ".txt", ".model", ".jinja", ".safetensors")
"""endings of the files that are read"""

_DEPTH = re.compile(
    r"num_.*layers|n_?layers?|(encoder|decoder)_layers|depths?|num_.*_(blocks|groups)"
)
"""settings that count modules, each of which has weights of its own"""

_WIDTHS = (
    *("vocab_size", "hidden_size", "intermediate_size", "n_embd", "d_model", "d_ff"),
    *("n_positions", "n_inner", "embedding_size", "type_vocab_size", "ffn_dim"),
)
"""settings that are dimensions of weights"""

_LARGEST = 2**24
"""of any other whole number, except the base of a rotation"""

_CODE = (
    *("attn_implementation", "_attn_implementation", "experts_implementation"),
    *("_experts_implementation", "kernel_config", "use_kernels"),
)
"""settings that can name kernels on the hub, which are code"""


def check_foreign(folder: Path) -> dict[str, Stored]:
    """The tensors of a Hugging Face folder by name, once the folder is known to be harmless.

    Every file that is read is in the folder; JSON holds finite numbers only; the index names
    plain `.safetensors` files; weights are floating-point numbers; sizes do not go beyond the
    weights.

    Raises:
        CheckpointError: one sentence on the first violation.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; expected a Hugging Face model folder")
    check_files(folder)
    path = folder / "config.json"
    config = read_json(path)
    if "transformers_weights" in config:
        raise CheckpointError(
            f"{path}: 'transformers_weights' names another weights file; expected model.safetensors"
        )
    if (folder / "adapter_config.json").exists():
        raise CheckpointError(
            f"{folder}: adapter_config.json names another model to load; expected a whole model, "
            "with its LoRA weights merged"
        )
    tensors: dict[str, Stored] = {}
    for file in weight_files(folder):
        found = stored_tensors(file)
        check_numbers(file, found)
        tensors |= found
    _check_config(config, path, tensors)
    return tensors


def check_files(folder: Path) -> None:
    """Raises CheckpointError if a file that may be read is outside `folder`, or is JSON that
    is damaged or holds numbers that are not finite.
    """
    for path in sorted(folder.iterdir()):
        if path.suffix in _READ:
            check_inside(folder, path)
        if path.suffix == ".json":
            read_any_json(path)


@contextmanager
def foreign_errors(source: Path | str, what: str) -> Generator[None]:
    """Whatever another library raises on the files of `source`, or when it computes with them, as
    one sentence: it is not `what`.

    Raises:
        CheckpointError: any error except a lack of GPU memory, which passes and shrinks batches.
        MissingDependencyError: a package is not installed.
    """
    try:
        yield
    except EarwitnessError:
        raise
    except ImportError as error:
        raise MissingDependencyError(
            f"{source}: needs another package ({one_line(error)[:200]})"
        ) from None
    except Exception as error:  # each library, and each kind of model, has errors of its own
        if type(error).__name__ == "OutOfMemoryError":  # of torch, which is not imported here
            raise
        _refuse(source, what, error)


def check_total(count: int, tensors: dict[str, Stored], source: Path) -> None:
    """Raises CheckpointError if a network of `count` weights is far larger than its files.

    Tied weights are stored once, so a network may have twice what is stored.
    """
    stored = sum(tensor.size for tensor in tensors.values())
    if count > 2 * stored + 2**20:
        raise CheckpointError(
            f"{source}: describes a network of {count} weights; its files hold {stored}"
        )


def _refuse(source: Path | str, what: str, error: Exception) -> NoReturn:
    reason = one_line(error)[:200] or type(error).__name__
    raise CheckpointError(f"{source}: not {what} ({reason})") from None


def _check_config(config: Any, path: Path, tensors: dict[str, Stored], key: str = "") -> None:
    if is_object(config):
        for name, value in config.items():
            if name in _CODE and isinstance(value, str) and "/" not in value:
                continue
            if name in _CODE and value:
                raise CheckpointError(
                    f"{path}: {name} asks for code from the hub, which is never run"
                )
            _check_config(value, path, tensors, name)
    elif is_list(config):
        for value in config:
            _check_config(value, path, tensors, key)
    elif isinstance(config, int) and not isinstance(config, bool):
        most = _most(key, tensors)
        if abs(config) > most:
            shown = config if abs(config) < 10**20 else "a number of more than 20 digits"
            raise CheckpointError(
                f"{path}: {key} is {shown}; expected at most {most}, by the weights beside it"
            )


def _most(key: str, tensors: dict[str, Stored]) -> int:
    if _DEPTH.fullmatch(key):
        return len(tensors)
    if key in _WIDTHS:
        return max((side for tensor in tensors.values() for side in tensor.shape), default=1)
    return 2**40 if "theta" in key else _LARGEST
