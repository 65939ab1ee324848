"""Weights of a model folder without torch: safetensors files, mapped into memory, not copied."""

import json
import mmap
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped

from earwitness.errors import CheckpointError
from earwitness.io.kinds import is_list

_BYTES = {"F16": 2, "BF16": 2, "F32": 4, "I64": 8}
_LONGEST_HEADER = 64 * 2**20


@dataclass(frozen=True)
class Stored:
    """Where a tensor is in its file: number format, shape, first byte, and how many bytes."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int


class WeightFile:
    """The tensors of one safetensors file by name; its bytes stay in the file until they are read.

    Format: https://github.com/huggingface/safetensors#format.
    """

    def __init__(self, path: Path) -> None:
        """Raises CheckpointError if `path` is missing or not a whole safetensors file."""
        self.path = path
        try:
            with path.open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise CheckpointError(f"{path}: no such file; a model folder must hold it") from None
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path}: not readable as safetensors ({error})") from None
        self.tensors = self._header()

    def bytes_of(self, offset: int, size: int) -> np.ndarray:
        """`size` bytes from `offset`, as a view into the file."""
        return np.frombuffer(self._bytes, np.uint8, size, offset)

    def release(self) -> None:
        """Releases the memory of what was read; it is read again when needed."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._bytes.madvise(mmap.MADV_DONTNEED)

    def rows(self, name: str) -> "Rows":
        """A table of the file whose rows are read one by one.

        Raises:
            CheckpointError: there is no such tensor, or it is not a floating-point table.
        """
        stored = self.tensors.get(name)
        if stored is None:
            raise CheckpointError(f"{self.path}: weight '{name}' is missing")
        if len(stored.shape) != 2 or stored.dtype == "I64":
            raise CheckpointError(f"{self.path}: weight '{name}' is not a table of numbers")
        return Rows(self.bytes_of(stored.offset, stored.size), stored)

    def _header(self) -> dict[str, Stored]:
        length = int.from_bytes(self._bytes[:8], "little")
        start = 8 + length
        try:
            if not 2 <= length <= min(_LONGEST_HEADER, len(self._bytes) - 8):
                raise ValueError("it has no header")
            header = json.loads(self._bytes[8:start])
            header.pop("__metadata__", None)
            return {name: self._stored(entry, start) for name, entry in header.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            reason = f"key {error}" if isinstance(error, KeyError) else str(error)
            raise CheckpointError(
                f"{self.path}: damaged, or not a safetensors file ({reason})"
            ) from None

    def _stored(self, entry: dict[str, object], start: int) -> Stored:
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if dtype not in _BYTES or not isinstance(dtype, str):
            raise ValueError(f"dtype {dtype!r}")
        if not is_list(shape) or not is_list(offsets):
            raise ValueError("shape or place of a tensor")
        first, end = (int(place) for place in offsets)
        size = prod(int(side) for side in shape) * _BYTES[dtype]
        if not (0 <= first <= end <= len(self._bytes) - start and end - first == size):
            raise ValueError("a tensor is outside the file")
        return Stored(dtype, tuple(int(side) for side in shape), start + first, size)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The tensors of the safetensors file at `path`. Raises CheckpointError."""
    file = WeightFile(path)
    kinds = {"F16": np.float16, "F32": np.float32, "I64": np.int64}
    for name, stored in file.tensors.items():
        if stored.dtype not in kinds:
            raise CheckpointError(
                f"{path}: weight '{name}' holds {stored.dtype}, expected F16 or F32"
            )
    return {
        name: file.bytes_of(stored.offset, stored.size)
        .view(kinds[stored.dtype])
        .reshape(stored.shape)
        for name, stored in file.tensors.items()
    }


class Rows:
    """Rows of a stored table as float32."""

    def __init__(self, data: np.ndarray, stored: Stored) -> None:
        self.shape = stored.shape
        self._dtype = stored.dtype
        kinds = {"F16": np.float16, "BF16": np.uint16, "F32": np.float32}
        self._data = data.view(kinds[stored.dtype]).reshape(stored.shape)

    def __call__(self, ids: np.ndarray) -> Float[np.ndarray, "*rows E"]:
        """The rows `ids`, in the shape of `ids` with one more axis."""
        found = self._data[ids]
        if self._dtype == "BF16":
            return (found.astype(np.uint32) << 16).view(np.float32)
        return found.astype(np.float32)


def not_finite(dtype: str, data: Shaped[np.ndarray, " bytes"]) -> bool:
    """Whether the bytes of a tensor hold a number that is not finite."""
    if dtype == "I64":
        return False
    # All exponent bits set: infinity or NaN. Faster than testing half-precision numbers.
    kind, bits = {
        "F16": (np.uint16, 0x7C00),
        "BF16": (np.uint16, 0x7F80),
        "F32": (np.uint32, 0x7F800000),
    }[dtype]
    return bool(((data.view(kind) & bits) == bits).any())
