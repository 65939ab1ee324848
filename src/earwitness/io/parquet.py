"""pyarrow, where it is installed."""

from pathlib import Path
from types import ModuleType

from earwitness.errors import MissingDependencyError


def need_parquet(path: Path | str) -> tuple[ModuleType, ModuleType]:
    """The modules pyarrow and pyarrow.parquet, for `path`. Raises MissingDependencyError."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MissingDependencyError(
            f"{path}: parquet needs the package pyarrow; pip install pyarrow, or use CSV or JSONL"
        ) from None
    return pyarrow, parquet
