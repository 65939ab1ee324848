"""Frame encoders by kind, and their folders: `config.json` (with `kind`), `model.safetensors`."""

from collections.abc import Callable
from pathlib import Path

import torch

from earwitness.encoders.base import FrameEncoder
from earwitness.encoders.ced import CED, CEDConfig, ced_state, hub_config
from earwitness.encoders.cnn import CNN, CNNConfig
from earwitness.errors import CheckpointError, ConfigError
from earwitness.models.building import built
from earwitness.models.hub import WeightsOrigin
from earwitness.models.weights import (
    read_json,
    read_settings,
    read_weights,
    write_json,
    write_weights,
)

FRAME_ENCODERS: dict[str, tuple[type[CEDConfig | CNNConfig], Callable[..., CED | CNN]]] = {
    "ced": (CEDConfig, CED),
    "cnn": (CNNConfig, CNN),
}


def save_frame_encoder(encoder: CED | CNN, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Writes `encoder` (a CED or CNN) to `folder`."""
    kind = next(name for name, (_, cls) in FRAME_ENCODERS.items() if type(encoder) is cls)
    write_json(folder / "config.json", {"kind": kind, **encoder.config.model_dump(mode="json")})
    write_weights(folder / "model.safetensors", encoder, dtype)


def load_frame_encoder(folder: Path) -> FrameEncoder:
    """The encoder in `folder`: one of ours, or an unchanged `mispeech/ced-*` hub folder.

    Raises:
        CheckpointError: a file is missing or damaged, the kind is unknown, or a weight does not
            fit.
    """
    encoder = _load(folder)
    encoder.origin = WeightsOrigin(folder)
    return encoder.eval()


def _load(folder: Path) -> CED | CNN:
    config = read_json(folder / "config.json")
    state = read_weights(folder / "model.safetensors")
    if config.get("model_type") == "ced":
        try:
            sizes = hub_config(config)
        except ConfigError as error:
            raise CheckpointError(f"{folder / 'config.json'}: {error}") from None
        return built(lambda: CED(sizes), ced_state(state), str(folder))
    kind = config.pop("kind", None)
    if not isinstance(kind, str) or kind not in FRAME_ENCODERS:
        raise CheckpointError(
            f"{folder}: unknown encoder kind {kind!r}; expected one of {', '.join(FRAME_ENCODERS)}"
        )
    config_class, encoder_class = FRAME_ENCODERS[kind]
    settings = read_settings(config_class, config, folder / "config.json")
    return built(lambda: encoder_class(settings), state, str(folder))
