"""Which bridge, in recipes and on disk: a word and that bridge's own settings."""

from pathlib import Path
from typing import Literal

import torch

from earwitness.config import Strict
from earwitness.link.base import Bridge, BridgeConfig
from earwitness.link.baselines import (
    MeanShift,
    MeanShiftConfig,
    NoBridge,
    NoiseInjection,
    NoiseInjectionConfig,
    TextMemory,
    TextMemoryConfig,
)
from earwitness.link.bridge import DiffusionLink, DiffusionLinkConfig
from earwitness.link.learned_baselines import (
    ConditionalPrior,
    ConditionalPriorConfig,
    DiffusionBridge,
    DiffusionBridgeConfig,
    Regressor,
    RegressorConfig,
)
from earwitness.models.weights import (
    load_weights,
    read_json,
    read_settings,
    read_weights,
    write_json,
    write_weights,
)

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


class BridgeChoice(Strict):
    """Which bridge, and its settings. Its `dim` is always the encoder's, whatever stands there."""

    kind: Literal[
        "diffusion_link",
        "none",
        "mean_shift",
        "noise_injection",
        "text_memory",
        "regressor",
        "diffusion_bridge",
        "conditional_prior",
    ] = "none"
    diffusion_link: DiffusionLinkConfig = DiffusionLinkConfig()
    none: BridgeConfig = BridgeConfig()
    mean_shift: MeanShiftConfig = MeanShiftConfig()
    noise_injection: NoiseInjectionConfig = NoiseInjectionConfig()
    text_memory: TextMemoryConfig = TextMemoryConfig()
    regressor: RegressorConfig = RegressorConfig()
    diffusion_bridge: DiffusionBridgeConfig = DiffusionBridgeConfig()
    conditional_prior: ConditionalPriorConfig = ConditionalPriorConfig()

    def build(self, dim: int) -> Bridge:
        """A new bridge for embeddings of `dim` numbers."""
        settings: BridgeConfig = getattr(self, self.kind)
        return BRIDGES[self.kind][1](settings.model_copy(update={"dim": dim}))

    @classmethod
    def of(cls, bridge: Bridge) -> "BridgeChoice":
        """The choice that builds a bridge like this one."""
        kind = next(name for name, (_, made) in BRIDGES.items() if type(bridge) is made)
        return cls(**{"kind": kind, kind: bridge.config})


def save_bridge(bridge: Bridge, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Writes `config.json` (with `kind`) and `model.safetensors`."""
    choice = BridgeChoice.of(bridge)
    settings = {"kind": choice.kind, choice.kind: bridge.config.model_dump(mode="json")}
    write_json(folder / "config.json", settings)
    write_weights(folder / "model.safetensors", bridge, dtype)


def load_bridge(folder: Path) -> Bridge:
    """The frozen bridge of `folder`.

    Raises:
        CheckpointError: a file is missing or damaged, the kind unknown, or a weight does not fit.
    """
    choice = read_settings(BridgeChoice, read_json(folder / "config.json"), folder / "config.json")
    bridge = choice.build(getattr(choice, choice.kind).dim)
    load_weights(bridge, read_weights(folder / "model.safetensors"), str(folder))
    return bridge.requires_grad_(False).eval()
