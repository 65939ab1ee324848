"""The weight files of a folder before anything is loaded: which they are, where they really are,
and what their headers say. Needs no torch.
"""

from math import prod
from pathlib import Path
from typing import Any, NamedTuple, cast

from earwitness.errors import CheckpointError, one_line
from earwitness.io.kinds import is_object
from earwitness.models.json_files import read_json

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

NUMBERS = ("F64", "F32", "F16", "BF16")
"""formats that weights are read in"""

_COUNTERS = ("position_ids", "token_type_ids", "relative_position_index", "num_batches_tracked")
_MASKS = ("bias", "masked_bias")
"""last parts of names whose tensors may hold whole numbers; older checkpoints keep causal masks"""


class Stored(NamedTuple):
    """A tensor by its header."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)


def check_inside(folder: Path, path: Path) -> Path:
    """`path`, a regular file that really is in `folder`, or, for a snapshot in the hub's cache,
    among the blobs of the same repository.

    Raises:
        CheckpointError: it is missing, a folder or a device, or a link out of the folder.
    """
    root, real = folder.resolve(), path.resolve()
    allowed = [root]
    allowed += [place.parent / "blobs" for place in root.parents if place.name == "snapshots"]
    if not any(real.is_relative_to(place) for place in allowed):
        raise CheckpointError(f"{path}: a link out of its folder; such links are never followed")
    if not real.exists():
        raise CheckpointError(f"{path}: no such file; weights are read from safetensors only")
    if not real.is_file():
        raise CheckpointError(f"{path}: expected a file, found a folder or a device")
    return path


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a Hugging Face folder: `model.safetensors`, or those of its index.

    Raises:
        CheckpointError: there are none, or the index names anything but `.safetensors` files of the
            folder itself.
    """
    index = folder / INDEX
    named = _indexed(index) if index.exists() or index.is_symlink() else []
    whole = folder / WEIGHTS
    if whole.exists() or whole.is_symlink():
        named = [*named, WEIGHTS]
    if not named:
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        problem = (
            f"its weights are pickled, {pickled[0]}, which can run code when loaded; "
            if pickled
            else "it holds no weights; "
        )
        raise CheckpointError(f"{folder}: {problem}expected model.safetensors")
    return [check_inside(folder, folder / name) for name in dict.fromkeys(named)]


def stored_tensors(path: Path) -> dict[str, Stored]:
    """The tensors of one safetensors file by name, from its header.

    Raises:
        CheckpointError: it is damaged.
    """
    from safetensors import SafetensorError, safe_open

    found: dict[str, Stored] = {}
    try:
        # safetensors is compiled and has no types.
        with cast("Any", safe_open)(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                part = file.get_slice(name)
                found[name] = Stored(part.get_dtype(), tuple(part.get_shape()))
    except (SafetensorError, OSError, ValueError) as error:
        reason = one_line(error)[:200]
        raise CheckpointError(f"{path}: damaged or not a safetensors file ({reason})") from None
    return found


def check_numbers(path: Path, tensors: dict[str, Stored]) -> None:
    """Raises CheckpointError if a weight of the file `path` is not a floating-point number: the
    networks would accept whole numbers as weights.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in NUMBERS and not _may_be_whole(name, tensor):
            raise CheckpointError(
                f"{path}: weight '{name}' holds {tensor.dtype}; expected {', '.join(NUMBERS)}"
            )


def _may_be_whole(name: str, tensor: Stored) -> bool:
    last = name.rpartition(".")[2]
    mask = last in _MASKS and len(tensor.shape) in (0, 4)
    return (last in _COUNTERS and tensor.dtype in ("I64", "I32")) or (
        mask and tensor.dtype in ("BOOL", "U8")
    )


def _indexed(index: Path) -> list[str]:
    check_inside(index.parent, index)
    names = read_json(index).get("weight_map")
    if not is_object(names) or not names:
        raise CheckpointError(f"{index}: expected a 'weight_map' of tensors to files")
    files: list[str] = []
    for name in names.values():
        plain = isinstance(name, str) and name == Path(name).name and "\\" not in name
        if not plain or not name.endswith(".safetensors"):
            raise CheckpointError(
                f"{index}: its weight_map names {str(name)[:100]!r}; expected the plain name of a "
                ".safetensors file in its folder"
            )
        files.append(name)
    return sorted(set(files))
