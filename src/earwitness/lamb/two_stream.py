"""LAMB's Two-Stream Adapter (arXiv 2601.04658): audio frames to a fixed number of tokens for an
LLM.

In the semantic stream learnable queries attend to the frames directly, in the temporal stream after
a multi-scale convolution and a bidirectional GRU; global queries then attend to both.
"""

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from earwitness.config import Strict
from earwitness.errors import ConfigError


class TwoStreamConfig(Strict):
    """Sizes of the adapter; token counts are the paper's, the rest is ours (docs/lamb.md)."""

    kind: Literal["two_stream"] = "two_stream"
    n_semantic: PositiveInt = 8
    n_temporal: PositiveInt = 8
    n_global: PositiveInt = 32
    heads: PositiveInt = 12
    kernels: tuple[PositiveInt, ...] = (3, 5, 7)
    gru_layers: PositiveInt = 2
    dropout: float = 0.1

    def build(self, dim: int, llm_dim: int) -> "TwoStreamAdapter":
        """A new adapter from frames of width `dim` to an LLM of width `llm_dim`."""
        return TwoStreamAdapter(self, dim, llm_dim)


class QueryAttention(nn.Module):
    """LN( MHA(Q, x) + Q ) for learnable queries Q: the step that LAMB repeats three times."""

    def __init__(self, n_queries: int, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(n_queries, dim) * 0.02)
        self.attention = nn.MultiheadAttention(dim, heads, dropout=dropout, batch_first=True)
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, x: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"] | None = None
    ) -> Float[Tensor, "B Q D"]:
        """What the queries gather from `x`; tokens where `mask` is False are not attended to."""
        queries = self.queries.expand(len(x), -1, -1)
        padding = None if mask is None else ~mask
        attended, _ = self.attention(queries, x, x, key_padding_mask=padding, need_weights=False)
        return self.norm(attended + queries)


class MultiScaleConv(nn.Module):
    """Local patterns: parallel "same" convolutions, summed, on top of the frames themselves.

    The paper says "multi-scale 1-D convolutional front-end"; kernels 3, 5, 7 (0.5 to 1.1 s), GELU
    and the residual with LayerNorm are ours.
    """

    def __init__(self, dim: int, kernels: tuple[int, ...]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Conv1d(dim, dim, kernel, padding=kernel // 2) for kernel in kernels
        )
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, h: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"]
    ) -> Float[Tensor, "B N D"]:
        h = h.masked_fill(~mask[..., None], 0.0)
        by_scale = [branch(h.transpose(1, 2)) for branch in self.branches]
        local = torch.stack(by_scale).sum(0).transpose(1, 2)
        return self.norm(h + nn.functional.gelu(local))


class TwoStreamAdapter(nn.Module):
    """Frames `h_a` to `z_a`, `n_global` tokens of the LLM's width."""

    def __init__(self, config: TwoStreamConfig, dim: int, llm_dim: int) -> None:
        """Raises ConfigError if heads, kernels and the width `dim` are incompatible."""
        super().__init__()
        _check_sizes(config, dim)
        self.config = config
        heads, dropout = config.heads, config.dropout
        self.semantic = QueryAttention(config.n_semantic, dim, heads, dropout)
        self.conv = MultiScaleConv(dim, config.kernels)
        self.gru = nn.GRU(
            dim,
            dim // 2,
            config.gru_layers,
            batch_first=True,
            bidirectional=True,
            dropout=dropout if config.gru_layers > 1 else 0.0,
        )
        self.temporal = QueryAttention(config.n_temporal, dim, heads, dropout)
        self.fusion = QueryAttention(config.n_global, dim, heads, dropout)
        self.project = nn.Linear(dim, llm_dim)

    def forward(
        self, h: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"]
    ) -> tuple[Float[Tensor, "B G E"], Bool[Tensor, "B G"]]:
        """Audio tokens and their mask (all real). LAMB, Two-Stream Adapter.

        z_a = W_p LN( MHA(Q_g, [h_s ; h_t]) + Q_g ); the paper's formula is cut off after
        "LN(MHA(Q_g, [h_s": the residual and W_p after the norm follow the two streams.
        """
        h_s, h_t = self.streams(h, mask)
        z_a = self.project(self.fusion(torch.cat([h_s, h_t], dim=1)))
        return z_a, torch.ones(z_a.shape[:2], dtype=torch.bool, device=z_a.device)

    def streams(
        self, h: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"]
    ) -> tuple[Float[Tensor, "B S D"], Float[Tensor, "B U D"]]:
        """The semantic tokens h_s = LN(MHA(Q_s, h_a) + Q_s) and temporal tokens h_t = LN(MHA(Q_t,
        GRU(Conv1D(h_a))) + Q_t).
        """
        return self.semantic(h, mask), self.temporal(self._context(self.conv(h, mask), mask), mask)

    def _context(
        self, h: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"]
    ) -> Float[Tensor, "B N D"]:
        packed = pack_padded_sequence(h, mask.sum(1).cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=h.shape[1])[
            0
        ]


def _check_sizes(config: TwoStreamConfig, dim: int) -> None:
    if dim % config.heads:
        raise ConfigError(f"heads {config.heads} do not divide the encoder's width {dim}")
    if dim % 2:
        raise ConfigError(
            f"the encoder's width {dim} is odd; the two directions of the GRU need an even one"
        )
    even = [kernel for kernel in config.kernels if kernel % 2 == 0]
    if even or not config.kernels:
        raise ConfigError(f"kernels {list(config.kernels)}: expected one or more odd sizes")


def match_token_norm(project: nn.Linear, token_norm: float) -> None:
    """Rescales `project` so that LayerNorm outputs leave it with about the norm `token_norm`.

    At the default scale a projected token is tens of times longer than a token embedding, where the
    Gaussian kernels of the aligner see nothing and the L2 guide only sees norms (docs/lamb.md).
    """
    width = project.in_features
    nn.init.normal_(project.weight, std=token_norm / math.sqrt(width * project.out_features))
    nn.init.zeros_(project.bias)
