"""The class head beside an encoder, computed by torch: classes of sounds, and events over time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float

from earwitness.encoders import load_frame_encoder
from earwitness.encoders.base import FrameEncoder
from earwitness.encoders.class_head import ClassHead, HeardEvent
from earwitness.errors import CheckpointError
from earwitness.models.names import model_folder, part_folder
from earwitness.models.weights import read_json

WINDOW_S = 1.28
"""length of the parts in which the highest probability is looked for; they overlap by half"""


@runtime_checkable
class TimedEncoder(FrameEncoder, Protocol):
    """A frame encoder whose frames are evenly spaced."""

    frame_rate: float
    """frames a second"""


class TorchSoundClasses:
    """A frame encoder with its class head: numpy in, numpy out."""

    def __init__(self, encoder: TimedEncoder, head: ClassHead) -> None:
        self.encoder, self.head = encoder, head
        self.sample_rate = encoder.sample_rate

    @classmethod
    def load(cls, model: Path | str = "pocket-lamb", device: str = "cpu") -> "TorchSoundClasses":
        """The frame encoder and the class head of a model.

        Raises:
            CheckpointError: there is no such model, or its encoder has no class head.
        """
        folder = model_folder(model)
        settings = read_json(folder / "earwitness.json")
        shared = (
            "encoder/audio" in settings.get("shared", {}) or (folder / "encoder/audio").is_dir()
        )
        place = part_folder(folder, "encoder/audio" if shared else "encoder", settings)
        head = ClassHead.load(place)
        if head is None:
            raise CheckpointError(f"{place}: no class head (classes.json) beside this encoder")
        encoder = cast(TimedEncoder, load_frame_encoder(place))
        return cls(encoder.to(device), head.to(device))  # type: ignore[attr-defined]

    @property
    def sentences(self) -> Sequence[Sequence[str]]:
        """For each class, what is said of it alone."""
        return self.head.config.sentences

    @torch.inference_mode()
    def heard(
        self, waveforms: Sequence[Float[np.ndarray, " _"]]
    ) -> tuple[Float[np.ndarray, "B K"], Float[np.ndarray, "B K"]]:
        """Probabilities of classes over the whole of each waveform, and the highest in a part."""
        whole, parts = [], []
        for frames in map(self._frames, waveforms):
            whole.append(self._probabilities(frames[None])[0])
            size = max(1, round(WINDOW_S * self.encoder.frame_rate))
            short = len(frames) <= size
            pieces = frames[None] if short else frames.unfold(0, size, size // 2).transpose(1, 2)
            parts.append(self._probabilities(pieces).amax(0))
        return torch.stack(whole).cpu().numpy(), torch.stack(parts).cpu().numpy()

    @torch.inference_mode()
    def events(self, waveform: Float[np.ndarray, " T"], threshold: float = 0.5) -> list[HeardEvent]:
        """The events of a waveform with their borders; see `ClassHead.events`."""
        return self.head.events(self._frames(waveform), self.encoder.frame_rate, threshold)

    def _frames(self, waveform: Float[np.ndarray, " T"]) -> torch.Tensor:
        device = self.head.linear.weight.device
        clip = torch.from_numpy(np.ascontiguousarray(waveform)).float()[None].to(device)
        return self.encoder(clip, torch.tensor([clip.shape[1]], device=device)).h[0]

    def _probabilities(self, frames: torch.Tensor) -> torch.Tensor:
        mask = torch.ones(frames.shape[:2], dtype=torch.bool, device=frames.device)
        return self.head(frames, mask)
