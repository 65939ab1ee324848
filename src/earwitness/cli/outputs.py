"""Output files of a command, distinguished by extension."""

from collections.abc import Sequence
from pathlib import Path

from earwitness.errors import ConfigError


def by_ending(paths: Sequence[Path], known: Sequence[str]) -> dict[str, Path]:
    """The path for each extension, such as ".json".

    Raises:
        ConfigError: an extension is not one of `known`, or two paths share one.
    """
    found: dict[str, Path] = {}
    for path in paths:
        ending = path.suffix.lower()
        if ending not in known:
            raise ConfigError(f"--output {path}: expected a file ending in {', '.join(known)}")
        if ending in found:
            raise ConfigError(f"--output {path}: {found[ending]} has the same format")
        found[ending] = path
    return found
