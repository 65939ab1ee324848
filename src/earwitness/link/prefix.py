"""What Diffusion-Link puts before the language model: a frozen bridge and a trained projector."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import PositiveInt
from torch import Tensor, nn

from earwitness.config import Strict
from earwitness.link.base import Side
from earwitness.link.baselines import NoBridgeConfig
from earwitness.link.choice import AnyBridgeConfig
from earwitness.link.network import Projector


class LinkPrefixConfig(Strict):
    """Which bridge, and the size of the projector."""

    kind: Literal["link"] = "link"
    bridge: AnyBridgeConfig = NoBridgeConfig()
    hidden: PositiveInt = 2048
    """inside the projector [DRCap]"""

    def build(self, dim: int, llm_dim: int) -> "LinkPrefix":
        """A new prefix from embeddings of size `dim` to an LLM of width `llm_dim`."""
        return LinkPrefix(self, dim, llm_dim)


class LinkPrefix(nn.Module):
    """An embedding, given as a clip's one frame, to one token of the language model.

    Diffusion-Link (arXiv 2510.11330), figure 1(b): e -> frozen bridge -> projector -> p. At the
    projector's input the unit vector is scaled to norm sqrt(C), so that its numbers are of order 1.
    """

    def __init__(self, config: LinkPrefixConfig, dim: int, llm_dim: int) -> None:
        super().__init__()
        self.config, self.scale = config, dim**0.5
        bridge = config.bridge.model_copy(update={"dim": dim}).build()
        self.bridge = bridge.requires_grad_(False).eval()
        self.projector = Projector(dim, llm_dim, config.hidden)

    @property
    def project(self) -> nn.Linear:
        """The last layer, whose scale sets the norm of the token."""
        layer = self.projector.layers[-1]
        assert isinstance(layer, nn.Linear)
        return layer

    def train(self, mode: bool = True) -> "LinkPrefix":
        """Training mode in the projector only: the bridge is frozen."""
        super().train(mode)
        self.bridge.eval()
        return self

    def forward(
        self,
        h: Float[Tensor, "B 1 C"],
        mask: Bool[Tensor, "B 1"],
        side: Side = "audio",
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, "B 1 E"], Bool[Tensor, "B 1"]]:
        """The token and its mask. `side` and `generator` go to the bridge: which encoder the
        embedding came from, and the source of fresh noise in training; without one a clip always
        gets the same noise.
        """
        # Half precision would blur the noise schedule and the unit norm of the result.
        with torch.no_grad(), torch.autocast(h.device.type, enabled=False):
            e = self.bridge(h[:, 0].float(), side=side, generator=generator)
        return self.projector(e * self.scale), mask
