"""Embeddings from .npy, .safetensors and .parquet files; captions and curves from tables."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Shaped

from earwitness.errors import DataError, one_line
from earwitness.io.parquet import need_parquet
from earwitness.io.tables import cell, read_table
from earwitness.io.text_files import missing


def _readers() -> dict[str, Callable[[Path, str], np.ndarray]]:
    return {".npy": _from_npy, ".safetensors": _from_safetensors, ".parquet": _from_parquet}


def load_vectors(source: str | Path) -> Shaped[np.ndarray, "..."]:
    """The array of a .npy, .safetensors or .parquet file; nothing in the file is ever executed.

    A file with several tensors or columns takes a name after `#`: `clap.safetensors#audio`.
    A parquet column holds one list of numbers per row; without such a column, all number columns
    together are the vectors. Raises DataError.
    """
    name, _, key = str(source).partition("#")
    path = Path(name)
    reader = _readers().get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"{path}: unknown format {path.suffix!r}; expected embeddings as "
            f"{', '.join(_readers())}"
        )
    if not path.is_file():
        raise DataError(missing(path, "embeddings"))
    return reader(path, key)


def _from_npy(path: Path, key: str) -> np.ndarray:
    if key:
        raise DataError(f"{path}: holds one array without a name; omit #{key}")
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(
            f"{path}: not a readable .npy array of numbers ({one_line(error)})"
        ) from error


def _from_safetensors(path: Path, key: str) -> np.ndarray:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return file.get_tensor(_one_of(path, list(file.keys()), key, "tensor"))
    except SafetensorError as error:
        raise DataError(f"{path}: not a readable safetensors file ({one_line(error)})") from error
    except TypeError as error:
        raise DataError(
            f"{path}: a number type that NumPy does not support ({error}); "
            "expected float16, float32 or float64"
        ) from error


def _from_parquet(path: Path, key: str) -> np.ndarray:
    pa, pq = need_parquet(path)
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable parquet file ({one_line(error)})") from error
    lists = [f.name for f in table.schema if _is_list(pa, f.type)]
    numbers = [f.name for f in table.schema if pa.types.is_floating(f.type)]
    if not key and not lists and numbers:
        return np.stack([table[name].to_numpy() for name in numbers], axis=1)
    column = table[_one_of(path, lists, key, "column of lists of numbers")]
    rows = [value.values.to_numpy(zero_copy_only=False) for value in column if value.is_valid]
    if len(rows) != len(column) or len({len(row) for row in rows}) != 1:
        raise DataError(f"{path}: rows of missing or unequal length; expected equal lengths")
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
    raise DataError(f"{wanted}; choose one of: {listed} (as in {path.name}#name)")


def load_columns(path: str | Path, required: tuple[str, ...]) -> dict[str, list[str]]:
    """The columns of a table, as text. Raises DataError if one of `required` is missing."""
    table = read_table(path, "table", (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"))
    missing = [name for name in required if name not in table.columns]
    if missing:
        raise DataError(
            f"{table.path}: no column {missing[0]!r}; expected {', '.join(required)}, got "
            f"{', '.join(table.columns) or 'none'}"
        )
    table.complete()
    return {name: [cell(row, name) for row in table.rows] for name in table.columns}


def load_captions(path: str | Path) -> tuple[list[str], Int64[np.ndarray, " M"] | None]:
    """Captions, and the owner of each if the table has a column `owner` (rows from 0)."""
    columns = load_columns(path, ("caption",))
    if "owner" not in columns:
        return columns["caption"], None
    try:
        return columns["caption"], np.array([int(text) for text in columns["owner"]], np.int64)
    except ValueError as error:
        raise DataError(
            f"{path}: expected a row of the audio file, counted from 0, in column 'owner' ({error})"
        ) from error
