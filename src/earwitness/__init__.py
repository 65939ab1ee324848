"""earwitness turns any sound into a sentence.

Importing this package is cheap: the heavy libraries load with the first name that needs them.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from earwitness.caption import Caption
    from earwitness.captioning.captioner import Captioner
    from earwitness.errors import (
        AudioError,
        CheckpointError,
        ConfigError,
        DataError,
        EarwitnessError,
    )
    from earwitness.evaluation import evaluate

__version__ = "0.1.0"

_HOMES = {
    "Captioner": "earwitness.captioning.captioner",
    "Caption": "earwitness.caption",
    "evaluate": "earwitness.evaluation",
    "EarwitnessError": "earwitness.errors",
    "AudioError": "earwitness.errors",
    "ConfigError": "earwitness.errors",
    "CheckpointError": "earwitness.errors",
    "DataError": "earwitness.errors",
}

__all__ = [
    "AudioError",
    "Caption",
    "Captioner",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "EarwitnessError",
    "__version__",
    "evaluate",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'earwitness' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
