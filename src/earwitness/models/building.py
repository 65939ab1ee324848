"""Networks built once their weights are known to fit: first without memory, then for real."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from earwitness.models.foreign import check_total, foreign_errors
from earwitness.models.tensors import Stored
from earwitness.models.weights import check_fit

Module = TypeVar("Module", bound=nn.Module)


def built(make: Callable[[], Module], state: dict[str, Tensor], source: str) -> Module:
    """What `make` makes, with the weights `state`.

    Raises:
        CheckpointError: naming the first weight that is missing, unknown, of another shape or
            number format, or not finite; nothing was allocated then. Or its settings make no
            network.
    """
    with foreign_errors(source, "a network that can be built"):
        with torch.device("meta"):
            check_fit(make(), state, source)
        network = make()
    network.load_state_dict(state, strict=True)
    return network


def check_foreign_size(
    make: Callable[[], nn.Module], tensors: dict[str, Stored], source: Path
) -> None:
    """Raises CheckpointError if the network that `make` makes is far larger than `tensors`."""
    with torch.device("meta"):
        network = make()
    check_total(sum(weight.numel() for weight in network.parameters()), tensors, source)
