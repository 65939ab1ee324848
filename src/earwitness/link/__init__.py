"""Bridges over the modality gap: Diffusion-Link and its rivals, all behind one call.

    bridge = DiffusionLink(DiffusionLinkConfig(dim=512))
    e_hat = bridge(e, seed=0)

`BRIDGES` names each bridge in recipes and model folders.
"""

from earwitness.link.base import Bridge, BridgeConfig, Side
from earwitness.link.baselines import (
    MeanShift,
    MeanShiftConfig,
    NoBridge,
    NoiseInjection,
    NoiseInjectionConfig,
    TextMemory,
    TextMemoryConfig,
)
from earwitness.link.bridge import (
    DiffusionLink,
    DiffusionLinkConfig,
    SweepPoint,
    start_time_sweep,
)
from earwitness.link.choice import BRIDGES, BridgeChoice, load_bridge, save_bridge
from earwitness.link.learned_baselines import (
    ConditionalPrior,
    ConditionalPriorConfig,
    DiffusionBridge,
    DiffusionBridgeConfig,
    Regressor,
    RegressorConfig,
)
from earwitness.link.network import NetworkConfig, Projector, ResidualMLP
from earwitness.link.prefix import LinkPrefix, LinkPrefixConfig
from earwitness.link.topology import Topology, topology_loss

__all__ = [
    "BRIDGES",
    "Bridge",
    "BridgeChoice",
    "BridgeConfig",
    "ConditionalPrior",
    "ConditionalPriorConfig",
    "DiffusionBridge",
    "DiffusionBridgeConfig",
    "DiffusionLink",
    "DiffusionLinkConfig",
    "LinkPrefix",
    "LinkPrefixConfig",
    "MeanShift",
    "MeanShiftConfig",
    "NetworkConfig",
    "NoBridge",
    "NoiseInjection",
    "NoiseInjectionConfig",
    "Projector",
    "Regressor",
    "RegressorConfig",
    "ResidualMLP",
    "Side",
    "SweepPoint",
    "TextMemory",
    "TextMemoryConfig",
    "Topology",
    "load_bridge",
    "save_bridge",
    "start_time_sweep",
    "topology_loss",
]
