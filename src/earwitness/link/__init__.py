"""Bridges over the modality gap: Diffusion-Link and its baselines, all behind one call.

    bridge = DiffusionLink(DiffusionLinkConfig(dim=512))
    e_hat = bridge(e, seed=0)

`AnyBridgeConfig` lists the kinds of bridges for recipes and model folders.
"""

from earwitness.link.base import Bridge, Side
from earwitness.link.baselines import NoBridge, NoBridgeConfig
from earwitness.link.bridge import (
    DiffusionLink,
    DiffusionLinkConfig,
    simplest_start,
    start_time_sweep,
)
from earwitness.link.choice import AnyBridgeConfig, bridge_kinds, load_bridge, save_bridge
from earwitness.link.prefix import LinkPrefix, LinkPrefixConfig

__all__ = [
    "AnyBridgeConfig",
    "Bridge",
    "DiffusionLink",
    "DiffusionLinkConfig",
    "LinkPrefix",
    "LinkPrefixConfig",
    "NoBridge",
    "NoBridgeConfig",
    "Side",
    "bridge_kinds",
    "load_bridge",
    "save_bridge",
    "simplest_start",
    "start_time_sweep",
]
