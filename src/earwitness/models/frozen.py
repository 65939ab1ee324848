"""Partly frozen modules."""

from collections.abc import Iterable
from typing import Any

from torch import nn


class PartlyFrozen(nn.Module):
    """A module whose `frozen` parts stay in evaluation mode while the rest trains: their dropout is
    off, and their batch statistics do not change.
    """

    def frozen(self) -> Iterable[Any]:
        """The parts that are not trained."""
        return ()

    def train(self, mode: bool = True) -> Any:
        """Training mode everywhere but in the frozen parts."""
        super().train(mode)
        for part in self.frozen():
            part.eval()
        return self
