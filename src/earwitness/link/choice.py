"""The kinds of bridges, and the folder of a bridge on disk."""

from pathlib import Path
from typing import Annotated, Any, TypeAlias, get_args

import torch
from pydantic import Field

from earwitness.config import Strict
from earwitness.link.base import Bridge
from earwitness.link.baselines import (
    MeanShiftConfig,
    NoBridgeConfig,
    NoiseInjectionConfig,
    TextMemoryConfig,
)
from earwitness.link.bridge import DiffusionLinkConfig
from earwitness.link.learned_baselines import (
    ConditionalPriorConfig,
    DiffusionBridgeConfig,
    RegressorConfig,
)
from earwitness.models.building import built
from earwitness.models.weights import (
    read_json,
    read_settings,
    read_weights,
    write_json,
    write_weights,
)

AnyBridgeConfig: TypeAlias = Annotated[
    DiffusionLinkConfig
    | NoBridgeConfig
    | MeanShiftConfig
    | NoiseInjectionConfig
    | TextMemoryConfig
    | RegressorConfig
    | DiffusionBridgeConfig
    | ConditionalPriorConfig,
    Field(discriminator="kind"),
]
"""settings of one bridge, selected by `kind`; the list of all kinds"""


def bridge_kinds() -> tuple[str, ...]:
    """The `kind` of every bridge."""
    return tuple(
        config.model_fields["kind"].default for config in get_args(get_args(AnyBridgeConfig)[0])
    )


class _BridgeFolder(Strict):
    bridge: AnyBridgeConfig


def save_bridge(bridge: Bridge, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Writes `config.json` (with `kind`) and `model.safetensors`."""
    write_json(folder / "config.json", bridge.config.model_dump(mode="json"))
    write_weights(folder / "model.safetensors", bridge, dtype)


def load_bridge(folder: Path) -> Bridge:
    """The frozen bridge of `folder`.

    Raises:
        CheckpointError: a file is missing or damaged, the kind is unknown, or a weight does not
            fit.
    """
    settings = flat_bridge(read_json(folder / "config.json"))
    config = read_settings(_BridgeFolder, {"bridge": settings}, folder / "config.json").bridge
    bridge = built(config.build, read_weights(folder / "model.safetensors"), str(folder))
    return bridge.requires_grad_(False).eval()


def flat_bridge(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a bridge in today's form. Model format 1 had a section per kind: `{"kind": k,
    k: {...}}`, the sections of other kinds beside it.
    """
    kind = settings.get("kind")
    own = settings.get(kind) if isinstance(kind, str) else None
    return {"kind": kind, **own} if isinstance(own, dict) else settings
