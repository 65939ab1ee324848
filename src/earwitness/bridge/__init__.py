"""Bridges over the modality gap: Diffusion-Link and its rivals, all behind one call.

    bridge = DiffusionLink(DiffusionLinkConfig(dim=512))
    e_hat = bridge(e, seed=0)

`BRIDGES` names each bridge in recipes and model folders.
"""

from earwitness.bridge.base import Bridge, BridgeConfig, Side
from earwitness.bridge.learned import (
    ConditionalPrior,
    ConditionalPriorConfig,
    DiffusionBridge,
    DiffusionBridgeConfig,
    Regressor,
    RegressorConfig,
)
from earwitness.bridge.link import (
    DiffusionLink,
    DiffusionLinkConfig,
    SweepPoint,
    start_time_sweep,
)
from earwitness.bridge.network import NetworkConfig, Projector, ResidualMLP
from earwitness.bridge.rivals import (
    MeanShift,
    MeanShiftConfig,
    NoBridge,
    NoiseInjection,
    NoiseInjectionConfig,
    TextMemory,
    TextMemoryConfig,
)
from earwitness.bridge.topology import Topology, topology_loss

BRIDGES: dict[str, tuple[type[BridgeConfig], type[Bridge]]] = {
    "diffusion_link": (DiffusionLinkConfig, DiffusionLink),
    "none": (BridgeConfig, NoBridge),
    "mean_shift": (MeanShiftConfig, MeanShift),
    "noise_injection": (NoiseInjectionConfig, NoiseInjection),
    "text_memory": (TextMemoryConfig, TextMemory),
    "regressor": (RegressorConfig, Regressor),
    "diffusion_bridge": (DiffusionBridgeConfig, DiffusionBridge),
    "conditional_prior": (ConditionalPriorConfig, ConditionalPrior),
}

__all__ = [
    "BRIDGES",
    "Bridge",
    "BridgeConfig",
    "ConditionalPrior",
    "ConditionalPriorConfig",
    "DiffusionBridge",
    "DiffusionBridgeConfig",
    "DiffusionLink",
    "DiffusionLinkConfig",
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
    "start_time_sweep",
    "topology_loss",
]
