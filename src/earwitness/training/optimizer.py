"""What updates the weights: parameter groups, the learning-rate schedule, averaged weights."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from earwitness.errors import ConfigError


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    learning_rate: float,
    learning_rates: dict[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Groups for AdamW: matrices decay, vectors and scalars (biases, norms, beta) do not.

    `learning_rates` gives parts of the model their own rates. A part is named by consecutive
    words of its parameters' dotted names; if several names match, the longest applies.

    Raises:
        ConfigError: a name matches no trained parameter.
    """
    rates = learning_rates or {}
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    for part in rates:
        if not any(_belongs(name, part) for name, _ in trained):
            raise ConfigError(
                f"fit.learning_rates.{part}: no trained parameter has this name; expected one of "
                f"{', '.join(_parts(name for name, _ in trained))}"
            )
    groups: dict[tuple[float, float], list[nn.Parameter]] = {
        (learning_rate, weight_decay): [],
        (learning_rate, 0.0): [],
    }
    for name, parameter in trained:
        fitting = [part for part in rates if _belongs(name, part)]
        rate = rates[max(fitting, key=len)] if fitting else learning_rate
        decay = weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def _belongs(parameter: str, part: str) -> bool:
    return f".{part}." in f".{parameter}."


def _parts(names: Iterable[str]) -> list[str]:
    """Names of parts near the root of a model, for messages."""
    found = {word for name in names for word in name.split(".")[:2] if not word.isdigit()}
    return sorted(found)


def warmup_cosine(warmup: float, total: int) -> Callable[[int], float]:
    """Factor of the learning rate by step: linear over `warmup` steps, then half a cosine to 0."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / max(1.0, warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1.0, total - warmup))))

    return factor


def averaged(model: nn.Module, decay: float, device: torch.device) -> AveragedModel | None:
    """A copy of `model` that follows it as an exponential moving average; None without a decay."""
    if not decay:
        return None
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    return ema.to(device)
