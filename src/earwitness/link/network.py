"""The residual MLP that every learned bridge uses, so that bridges differ in method, not in size.

Diffusion-Link (arXiv 2510.11330): "a lightweight network with three residual MLP blocks". Inner
widths, time embedding and zero initialization follow its predecessor SEED (arXiv 2505.16798),
which took the block from RCG (arXiv 2312.03701).
"""

from jaxtyping import Float, Int
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from earwitness.link.base import BridgeConfig
from earwitness.link.diffusion import timestep_embedding


class NetworkConfig(BridgeConfig):
    """Sizes of a `ResidualMLP`; at dim 512 the defaults give 9,725,440 parameters."""

    width: PositiveInt | None = Field(default=None, multiple_of=2)
    """of the residual stream; 2 x dim if not given"""
    bottleneck: PositiveInt | None = None
    """inside a block; 2 x dim if not given"""
    blocks: PositiveInt = 3
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)


class ResidualMLP(nn.Module):
    """`(x, t, context) -> y` of the shape of `x`; exactly 0 before training.

    There is no skip from input to output, so the untrained network is 0 and not the identity.
    `context_dim` adds a vector that conditions every block; without it the network takes none.
    """

    def __init__(self, config: NetworkConfig, context_dim: int | None = None) -> None:
        super().__init__()
        self.width = config.width or 2 * config.dim
        bottleneck = config.bottleneck or 2 * config.dim
        self.input = nn.Linear(config.dim, self.width)
        self.time = nn.Sequential(
            nn.Linear(self.width, config.dim), nn.SiLU(), nn.Linear(config.dim, config.dim)
        )
        self.blocks = nn.ModuleList(
            ResidualBlock(self.width, bottleneck, config.dim, context_dim, config.dropout)
            for _ in range(config.blocks)
        )
        self.output = nn.Sequential(
            nn.LayerNorm(self.width, eps=1e-6), nn.SiLU(), _zero_linear(self.width, config.dim)
        )

    def forward(
        self,
        x: Float[Tensor, "B C"],
        t: Int[Tensor, " B"],
        context: Float[Tensor, "B Cc"] | None = None,
    ) -> Float[Tensor, "B C"]:
        """Prediction for `x` at times `t`, given `context` if the network was built for one."""
        dtype = self.input.weight.dtype
        h = self.input(x.to(dtype))
        time = self.time(timestep_embedding(t, self.width).to(dtype))
        context = None if context is None else context.to(dtype)
        for block in self.blocks:
            h = block(h, time, context)
        return self.output(h).to(x.dtype)


class ResidualBlock(nn.Module):
    """`x + zero_linear(SiLU(LN(linear(SiLU(LN(x))) + time + context)))`; the identity at first."""

    def __init__(
        self, width: int, bottleneck: int, time_dim: int, context_dim: int | None, dropout: float
    ) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, bottleneck))
        self.time = nn.Sequential(nn.SiLU(), nn.Linear(time_dim, bottleneck))
        self.context = (
            nn.Sequential(nn.SiLU(), nn.Linear(context_dim, bottleneck)) if context_dim else None
        )
        self.outer = nn.Sequential(
            nn.LayerNorm(bottleneck),
            nn.SiLU(),
            nn.Dropout(dropout),
            _zero_linear(bottleneck, width),
        )

    def forward(
        self,
        x: Float[Tensor, "B W"],
        time: Float[Tensor, "B C"],
        context: Float[Tensor, "B Cc"] | None = None,
    ) -> Float[Tensor, "B W"]:
        """The residual stream after this block."""
        h = self.inner(x) + self.time(time)
        if self.context is not None and context is not None:
            h = h + self.context(context)
        return x + self.outer(h)


class Projector(nn.Module):
    """A bridged embedding to one prefix token of the language model.

    Diffusion-Link, figure 1(b); layers and inner width of DRCap (arXiv 2410.09472), "linear".
    """

    def __init__(self, dim: int, llm_dim: int, hidden: int = 2048) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, llm_dim))

    def forward(self, e: Float[Tensor, "B C"]) -> Float[Tensor, "B 1 E"]:
        """The prefix `z`, one token per clip."""
        return self.layers(e).unsqueeze(1)


def _zero_linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
