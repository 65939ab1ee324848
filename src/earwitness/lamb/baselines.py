"""The baselines of the Two-Stream Adapter in LAMB's Table 2: a linear map and a Q-Former."""

from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from pydantic import PositiveInt
from torch import Tensor, nn

from earwitness.config import Strict
from earwitness.errors import ConfigError


class LinearPrefixConfig(Strict):
    """The "Linear" row: neighboring frames side by side, one linear map."""

    kind: Literal["linear"] = "linear"
    stack: PositiveInt = 2
    """frames that become one token"""

    def build(self, dim: int, llm_dim: int) -> "LinearPrefix":
        """A new map from frames of width `dim` to an LLM of width `llm_dim`."""
        return LinearPrefix(self, dim, llm_dim)


class LinearPrefix(nn.Module):
    """Frames to about N / stack tokens. The baseline of LAMB's Table 2 and of SLAM-LLM."""

    def __init__(self, config: LinearPrefixConfig, dim: int, llm_dim: int) -> None:
        super().__init__()
        self.config = config
        self.norm = nn.LayerNorm(dim * config.stack)
        self.project = nn.Linear(dim * config.stack, llm_dim)

    def forward(
        self, h: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"]
    ) -> tuple[Float[Tensor, "B G E"], Bool[Tensor, "B G"]]:
        """Audio tokens and their mask: a token is real where its first frame is."""
        stack = self.config.stack
        missing = -h.shape[1] % stack
        h = nn.functional.pad(h.masked_fill(~mask[..., None], 0.0), (0, 0, 0, missing))
        z = self.project(self.norm(rearrange(h, "b (g k) d -> b g (k d)", k=stack)))
        return z, mask[:, ::stack]


class QFormerConfig(Strict):
    """The "Q-Former" row: learnable queries in a small transformer decoder (BLIP-2, SALMONN)."""

    kind: Literal["q_former"] = "q_former"
    n_queries: PositiveInt = 32
    layers: PositiveInt = 2
    heads: PositiveInt = 12
    dropout: float = 0.1

    def build(self, dim: int, llm_dim: int) -> "QFormer":
        """A new Q-Former from frames of width `dim` to an LLM of width `llm_dim`."""
        return QFormer(self, dim, llm_dim)


class QFormer(nn.Module):
    """Frames to `n_queries` tokens by self-attention, cross-attention and feed-forward in turn."""

    def __init__(self, config: QFormerConfig, dim: int, llm_dim: int) -> None:
        """Raises ConfigError if the heads do not divide the encoder's width `dim`."""
        super().__init__()
        if dim % config.heads:
            raise ConfigError(f"heads {config.heads} do not divide the encoder's width {dim}")
        self.config = config
        self.queries = nn.Parameter(torch.randn(config.n_queries, dim) * 0.02)
        layer = nn.TransformerDecoderLayer(
            dim, config.heads, 4 * dim, config.dropout, "gelu", batch_first=True
        )
        self.layers = nn.TransformerDecoder(layer, config.layers, nn.LayerNorm(dim))
        self.project = nn.Linear(dim, llm_dim)

    def forward(
        self, h: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"]
    ) -> tuple[Float[Tensor, "B G E"], Bool[Tensor, "B G"]]:
        """Audio tokens and their mask (all real)."""
        queries = self.queries.expand(len(h), -1, -1)
        z = self.project(self.layers(queries, h, memory_key_padding_mask=~mask))
        return z, torch.ones(z.shape[:2], dtype=torch.bool, device=z.device)
