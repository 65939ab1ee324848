"""pyarrow, if it is installed."""

from pathlib import Path
from types import ModuleType

from earwitness.errors import MissingDependencyError


def need_parquet(path: Path | str) -> tuple[ModuleType, ModuleType]:
    """The modules pyarrow and pyarrow.parquet, for `path`. Raises MissingDependencyError."""
    try:
        import pyarrow  # pyright: ignore[reportMissingTypeStubs]
        from pyarrow import parquet  # pyright: ignore[reportMissingTypeStubs]
    except ImportError:
        raise MissingDependencyError(
            f"{path}: parquet needs the package pyarrow; pip install pyarrow, or use CSV or JSONL"
        ) from None
    return pyarrow, parquet
