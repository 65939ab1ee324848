"""What moves the weights: parameter groups, the learning-rate schedule, averaged weights."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Groups for AdamW: matrices decay, vectors and scalars (biases, norms, beta) do not."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


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
