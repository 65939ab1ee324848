"""LoRA (arXiv 2106.09685) on a CED encoder, on queries and values, as in LAMB's predecessors.

CED has one linear map for queries, keys and values together. Each block gets two adapters of its
own, one that adds to the rows of the queries and one to those of the values, exactly as on separate
maps; the rows of the keys are unchanged. (One adapter on the fused map would also change keys,
and share its inner directions among the three.)
"""

import math
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from earwitness.encoders.base import FrameEncoder
from earwitness.encoders.ced import CED
from earwitness.errors import ConfigError
from earwitness.system.decoder import LoraSize


class QueryValueLora(nn.Module):
    """A fused query-key-value map with adapters on queries and values; at first it changes
    nothing.
    """

    def __init__(self, base: nn.Linear, config: LoraSize) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.scale = config.alpha / config.r
        self.dropout = nn.Dropout(config.dropout)
        dim = base.in_features
        place = base.weight.device
        down = torch.empty(config.r, dim, device=place, dtype=torch.float32)
        up = torch.zeros(dim, config.r, device=place, dtype=torch.float32)
        self.down = nn.ParameterList(nn.Parameter(torch.empty_like(down)) for _ in "qv")
        self.up = nn.ParameterList(nn.Parameter(torch.zeros_like(up)) for _ in "qv")
        for matrix in self.down:
            nn.init.kaiming_uniform_(matrix, a=math.sqrt(5))

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N QKV"]:
        """Queries, keys and values, side by side."""
        base = self.base(x)
        q, v = (
            nn.functional.linear(nn.functional.linear(self.dropout(x), down), up) * self.scale
            for down, up in zip(self.down, self.up, strict=True)
        )
        return base + torch.cat([q, torch.zeros_like(q), v], dim=-1)

    def merged(self) -> nn.Linear:
        """An ordinary map that computes the same."""
        q, v = (self.scale * up @ down for down, up in zip(self.down, self.up, strict=True))
        plain = nn.Linear(self.base.in_features, self.base.out_features, device=q.device)
        with torch.no_grad():
            plain.weight.copy_(self.base.weight + torch.cat([q, torch.zeros_like(q), v]))
            plain.bias.copy_(self.base.bias)
        return plain.requires_grad_(False)


def add_lora(encoder: FrameEncoder, config: LoraSize) -> None:
    """Puts adapters into all blocks of a CED; everything else stays frozen.

    Raises:
        ConfigError: the encoder is not a CED.
    """
    if not isinstance(encoder, CED):
        raise ConfigError(
            f"encoder_tune = 'lora' is for a CED encoder, this is a {type(encoder).__name__}; "
            "use encoder_tune = 'frozen'"
        )
    encoder.requires_grad_(False)
    # Its weights are no longer those of the folder it was loaded from.
    encoder.origin = None
    for attention in _attentions(encoder):
        attention.qkv = QueryValueLora(attention.qkv, config)


@contextmanager
def merged(encoder: FrameEncoder) -> Generator[None]:
    """Inside, `encoder` is an ordinary CED with its adapters merged in, as it is to be saved."""
    attentions = _attentions(encoder) if isinstance(encoder, CED) else []
    adapted = [a for a in attentions if isinstance(a.qkv, QueryValueLora)]
    kept = [attention.qkv for attention in adapted]
    for attention, lora in zip(adapted, kept, strict=True):
        attention.qkv = lora.merged()
    try:
        yield
    finally:
        for attention, lora in zip(adapted, kept, strict=True):
            attention.qkv = lora


def has_lora(encoder: FrameEncoder) -> bool:
    """Whether `encoder` holds adapters."""
    return isinstance(encoder, CED) and any(
        isinstance(attention.qkv, QueryValueLora) for attention in _attentions(encoder)
    )


def train_lora(encoder: FrameEncoder, mode: bool) -> None:
    """Dropout in the adapters, or none; the encoder's batch statistics do not change."""
    if isinstance(encoder, CED):
        for attention in _attentions(encoder):
            if isinstance(attention.qkv, QueryValueLora):
                attention.qkv.dropout.train(mode)


def _attentions(encoder: CED) -> list[Any]:
    blocks: Any = encoder.blocks
    return [block.attn for block in blocks]
