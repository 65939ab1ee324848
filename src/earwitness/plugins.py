"""Extensions from other packages, found by the entry points of their distributions.

Three groups: `earwitness.commands` (typer functions), `earwitness.stages` (`StageRecipe`
classes), and `earwitness.sources` (classes of training sources). `earwitness_lab`, in this
repository, registers itself this way; nothing here imports it.
"""

from importlib.metadata import entry_points
from typing import Any, Literal

Group = Literal["commands", "stages", "sources"]


def plugins(group: Group) -> dict[str, Any]:
    """The objects registered in a group, by name."""
    found = entry_points(group=f"earwitness.{group}")
    return {entry.name: entry.load() for entry in sorted(found, key=lambda e: e.name)}
