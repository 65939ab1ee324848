"""The batch that a GPU holds, found by trying: less memory first by gradient checkpointing, then by
smaller batches with accumulated gradients.
"""

import gc
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import PreTrainedModel

from earwitness.errors import ConfigError, TrainingError
from earwitness.models.weights import read_json, write_json
from earwitness.system.decoder import enable_checkpointing
from earwitness.training.batches import Collate, Measured
from earwitness.training.distributed import Losses, processes
from earwitness.training.progress import note
from earwitness.training.settings import FitConfig

DEVICE = "cuda"
FOUND = "memory.json"
"""file in a run folder that keeps what was found, so that a resumed run does the same"""


def fitted_to_memory(
    model: nn.Module,
    data: Dataset[Any],
    collate: Collate,
    loss_weights: dict[str, float],
    config: FitConfig,
    run: Path,
) -> FitConfig:
    """`config` with a `batch_size` and an `accumulate` such that the longest batch fits the GPU.

    Their product stays the same. Gradient checkpointing is turned on in the language models of
    `model` before the batch shrinks. Without a GPU nothing is tried and nothing changes.

    Raises:
        ConfigError: together with `fit.shard`, or on several processes. TrainingError: not even a
            batch of one clip fits.
    """
    if config.shard or processes() > 1:
        raise ConfigError(
            "fit.fit_memory tries batches in one process; find the batch on one GPU first, then "
            "set fit.batch_size and fit.accumulate"
        )
    if not torch.cuda.is_available():
        return config
    place = run / FOUND
    if place.is_file():
        found = read_json(place)
    else:
        found = _find(model, data, collate, loss_weights, config)
        write_json(place, found)
    if found["checkpointing"]:
        checkpointed(model)
    note(
        f"memory: batches of {found['batch_size']} clips, gradients of {found['accumulate']} summed"
        + (", gradient checkpointing" if found["checkpointing"] else "")
    )
    sizes = {key: found[key] for key in ("batch_size", "accumulate")}
    return config.model_copy(update=sizes)


def _find(
    model: nn.Module,
    data: Dataset[Any],
    collate: Collate,
    loss_weights: dict[str, float],
    config: FitConfig,
) -> dict[str, Any]:
    size, accumulate, checkpointing = config.batch_size, config.accumulate, False
    longest = _longest(data, size)
    while not _fits(model, collate([data[(i, 0)] for i in longest[:size]]), loss_weights, config):
        if not checkpointing and checkpointed(model):
            checkpointing = True
        elif size % 2 == 0:
            size, accumulate = size // 2, accumulate * 2
        else:
            raise TrainingError(
                f"batches of {size} clips do not fit the GPU, and cannot be halved; lower "
                "fit.batch_size to a power of two, shorten the clips, or quantize the decoder"
            )
    return {"batch_size": size, "accumulate": accumulate, "checkpointing": checkpointing}


def _longest(data: Any, count: int) -> list[int]:
    """The longest items, if lengths are known; otherwise the first ones."""
    if isinstance(data, Measured):
        return [int(i) for i in np.argsort(-np.asarray(data.lengths), kind="stable")[:count]]
    return list(range(min(count, len(data))))


def _fits(model: nn.Module, batch: Any, loss_weights: dict[str, float], config: FitConfig) -> bool:
    """Whether a forward and backward pass fits, with room for AdamW's two moments."""
    from accelerate.utils import send_to_device

    model.cuda().train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    short = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[config.precision]
    try:
        moments = [torch.zeros_like(p) for p in model.parameters() if p.requires_grad for _ in "mv"]
        with torch.autocast(DEVICE, dtype=short, enabled=short is not None):
            losses: Losses = model(send_to_device(batch, DEVICE))
        terms = [loss_weights.get(name, 1.0) * loss for name, loss in losses.items()]
        torch.stack(terms).sum().backward()
        del moments
    except torch.OutOfMemoryError:
        return False
    finally:
        # A trial must leave no trace: running means would count its batch.
        for name, buffer in model.named_buffers():
            buffer.copy_(before[name])
        model.zero_grad(set_to_none=True)
        gc.collect()
        torch.cuda.empty_cache()
    return True


def checkpointed(model: nn.Module) -> bool:
    """Turns gradient checkpointing on in the language models inside `model`; whether one of them
    was without it.
    """
    changed = False
    for part in model.modules():
        if not isinstance(part, PreTrainedModel) or not part.supports_gradient_checkpointing:
            continue
        if not any(getattr(m, "gradient_checkpointing", False) for m in part.modules()):
            enable_checkpointing(part)
            changed = True
    return changed
