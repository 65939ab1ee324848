"""The class head beside an encoder, over the frames that the encoder computes with torch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from earwitness.encoders.base import FrameEncoder
from earwitness.models.sound_classes import SoundClassifier
from earwitness.models.weights import read_weights


def classifier_of(encoder: FrameEncoder, place: Path) -> SoundClassifier | None:
    """The class head in the folder `place` of the frame encoder; None if it has none.

    Raises:
        CheckpointError: one of its files is missing or damaged.
    """

    @torch.inference_mode()
    def frames(waveforms: Sequence[Float[np.ndarray, " _"]]) -> list[Float[np.ndarray, "N D"]]:
        device = next(encoder.parameters()).device  # type: ignore[attr-defined]
        found: list[np.ndarray] = []
        for waveform in waveforms:
            clip = torch.from_numpy(np.ascontiguousarray(waveform, np.float32))[None].to(device)
            h = encoder(clip, torch.tensor([clip.shape[1]], device=device)).h[0]
            found.append(h.float().cpu().numpy())
        return found

    def read(path: Path) -> dict[str, np.ndarray]:
        return {name: tensor.numpy() for name, tensor in read_weights(path).items()}

    return SoundClassifier.load(place, read, frames, encoder.sample_rate)
