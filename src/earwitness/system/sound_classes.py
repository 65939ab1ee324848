"""The class head of a model over frames that torch computes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from earwitness.encoders import load_frame_encoder
from earwitness.errors import CheckpointError
from earwitness.models.json_files import read_json
from earwitness.models.names import model_folder, part_folder
from earwitness.models.sound_classes import SoundClassifier
from earwitness.models.weights import read_weights


def load_classifier(model: Path | str = "pocket-lamb", device: str = "cpu") -> SoundClassifier:
    """The frame encoder and the class head of a model.

    Raises:
        CheckpointError: there is no such model, or its encoder has no class head.
    """
    folder = model_folder(model)
    settings = read_json(folder / "earwitness.json")
    shared = "encoder/audio" in settings.get("shared", {}) or (folder / "encoder/audio").is_dir()
    place = part_folder(folder, "encoder/audio" if shared else "encoder", settings)
    encoder = load_frame_encoder(place)
    encoder.to(device)  # type: ignore[attr-defined]

    @torch.inference_mode()
    def frames(waveforms: Sequence[Float[np.ndarray, " _"]]) -> list[Float[np.ndarray, "N D"]]:
        found = []
        for waveform in waveforms:
            clip = torch.from_numpy(np.ascontiguousarray(waveform)).float()[None].to(device)
            h = encoder(clip, torch.tensor([clip.shape[1]], device=device)).h[0]
            found.append(h.float().cpu().numpy())
        return found

    def read(path: Path) -> dict[str, np.ndarray]:
        return {name: tensor.numpy() for name, tensor in read_weights(path).items()}

    classifier = SoundClassifier.load(place, read, frames, encoder.sample_rate)
    if classifier is None:
        raise CheckpointError(f"{place}: no class head (classes.json) beside this encoder")
    return classifier
