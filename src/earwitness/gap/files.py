"""Embeddings from .npy, .safetensors and .parquet files; captions and curves from CSV files."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np

from earwitness.errors import DataError, MissingDependencyError


def _readers() -> dict[str, Callable[[Path, str], np.ndarray]]:
    return {".npy": _from_npy, ".safetensors": _from_safetensors, ".parquet": _from_parquet}


def _existing(path: Path, accepted: str) -> Path:
    if not path.is_file():
        raise DataError(f"no file at {path}; accepted is {accepted}")
    return path


def load_vectors(source: str | Path) -> np.ndarray:
    """The array of a .npy, .safetensors or .parquet file; nothing in the file is ever executed.

    A file with several tensors or columns takes a name after `#`: `clap.safetensors#audio`.
    A parquet column holds one list of numbers per row; without such a column, all number columns
    together are the vectors. Raises DataError.
    """
    name, _, key = str(source).partition("#")
    path = Path(name)
    reader = _readers().get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path} is no embedding file; accepted are {', '.join(_readers())}")
    return reader(_existing(path, "an embedding file"), key)


def _from_npy(path: Path, key: str) -> np.ndarray:
    if key:
        raise DataError(f"{path} holds one array without a name; leave out #{key}")
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{path} is not a readable .npy array of numbers: {error}") from error


def _from_safetensors(path: Path, key: str) -> np.ndarray:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return file.get_tensor(_one_of(path, list(file.keys()), key, "tensor"))
    except SafetensorError as error:
        raise DataError(f"{path} is not a readable safetensors file: {error}") from error
    except TypeError as error:
        raise DataError(
            f"{path} holds a number type that numpy does not know ({error}); "
            "accepted are float16, float32 and float64"
        ) from error


def _from_parquet(path: Path, key: str) -> np.ndarray:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingDependencyError(
            "reading .parquet needs pyarrow; install it with: pip install 'earwitness[eval]'"
        ) from error
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable parquet file: {error}") from error
    lists = [f.name for f in table.schema if _is_list(pa, f.type)]
    numbers = [f.name for f in table.schema if pa.types.is_floating(f.type)]
    if not key and not lists and numbers:
        return np.stack([table[name].to_numpy() for name in numbers], axis=1)
    column = table[_one_of(path, lists, key, "column of lists of numbers")]
    rows = [value.values.to_numpy(zero_copy_only=False) for value in column if value.is_valid]
    if len(rows) != len(column) or len({len(row) for row in rows}) != 1:
        raise DataError(f"{path} has rows of missing or unequal length; accepted are equal lengths")
    return np.stack(rows)


def _is_list(pa: object, kind: object) -> bool:
    types = pa.types  # type: ignore[attr-defined]
    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _one_of(path: Path, names: list[str], key: str, what: str) -> str:
    if key and key in names:
        return key
    if not key and len(names) == 1:
        return names[0]
    listed = ", ".join(sorted(names)) or "none"
    wanted = f"no {what} {key!r} in {path}" if key else f"{path} has {len(names)} choices of {what}"
    raise DataError(f"{wanted}; name one of: {listed} (as in {path.name}#name)")


def load_columns(path: str | Path, required: tuple[str, ...]) -> dict[str, list[str]]:
    """The columns of a CSV file with a header line. Raises DataError where one is missing."""
    file = _existing(Path(path), f"a CSV file with the columns {', '.join(required)}")
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            header = list(reader.fieldnames or [])
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} is not a readable UTF-8 CSV file: {error}") from error
    missing = [name for name in required if name not in header]
    if missing:
        raise DataError(
            f"{file} has the columns {', '.join(header) or 'none'}; missing is {', '.join(missing)}"
        )
    short = [number for number, row in enumerate(rows, 2) if None in row or None in row.values()]
    if short:
        raise DataError(f"{file} line {short[0]} has not the {len(header)} cells of its header")
    return {name: [row[name] for row in rows] for name in header}


def load_captions(path: str | Path) -> tuple[list[str], np.ndarray | None]:
    """Captions, and the owner of each where the CSV file has a column `owner` (rows from 0)."""
    columns = load_columns(path, ("caption",))
    if "owner" not in columns:
        return columns["caption"], None
    try:
        return columns["caption"], np.array([int(cell) for cell in columns["owner"]], np.int64)
    except ValueError as error:
        raise DataError(
            f"{path} has an owner that is no whole number ({error}); accepted are rows from 0"
        ) from error
