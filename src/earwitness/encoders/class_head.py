"""What an encoder's frames sound like: a linear head over the classes of sound, kept beside it.

`classes.json` and `classes.safetensors` in an encoder's folder. The head sees the mean and the
maximum of frames, so that it says the same of a whole recording as of a second of it.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from pydantic import PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from earwitness.config import Strict
from earwitness.models.building import built
from earwitness.models.weights import (
    read_json,
    read_settings,
    read_weights,
    write_json,
    write_weights,
)

_SETTINGS, _WEIGHTS = "classes.json", "classes.safetensors"


class ClassHeadConfig(Strict):
    """The classes: `labels` are our own, `names` AudioSet's, `sentences` tell of each alone."""

    dim: PositiveInt
    """width of the encoder's frames"""
    labels: tuple[str, ...]
    names: tuple[str, ...]
    sentences: tuple[tuple[str, ...], ...]
    temperature: PositiveFloat = 1.0
    """that makes the probabilities right as often as they say, on held-out recordings"""

    @model_validator(mode="after")
    def _one_each(self) -> "ClassHeadConfig":
        sizes = {len(self.labels), len(self.names), len(self.sentences)}
        if len(sizes) > 1 or not all(self.sentences):
            raise ValueError("expected one name and at least one sentence for each label")
        return self


class HeardEvent(NamedTuple):
    """A sound of an AudioSet class from `start_s` to `end_s`, and its highest probability."""

    name: str
    label: str
    start_s: float
    end_s: float
    probability: float


class ClassHead(nn.Module):
    """Frames to probabilities of classes, which add up to 1."""

    def __init__(self, config: ClassHeadConfig) -> None:
        super().__init__()
        self.config = config
        self.linear = nn.Linear(2 * config.dim, len(config.labels))

    def forward(self, h: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"]) -> Float[Tensor, "B K"]:
        """The probability of each class over all frames of a clip; at least one frame each."""
        hidden = ~mask[..., None]
        mean = h.masked_fill(hidden, 0.0).sum(1) / mask.sum(1, keepdim=True)
        highest = h.masked_fill(hidden, -torch.inf).amax(1)
        logits = self.linear(torch.cat([mean, highest], dim=1).float())
        return (logits / self.config.temperature).softmax(dim=1)

    @torch.inference_mode()
    def events(
        self,
        h: Float[Tensor, "N D"],
        frame_rate: float,
        threshold: float = 0.5,
        window_s: float = 0.96,
    ) -> list[HeardEvent]:
        """The events of one clip in order of their start: runs of frames where a class has at least
        `threshold` in the window around them. Borders are those of frames.
        """
        size = max(1, round(window_s * frame_rate))
        before, after = size // 2, size - 1 - size // 2
        # The first and last frames are repeated, so that each frame is the middle of a window.
        ends = h[:1].expand(before, -1), h[-1:].expand(after, -1)
        windows = torch.cat([ends[0], h, ends[1]]).unfold(0, size, 1).transpose(1, 2)
        mask = torch.ones(windows.shape[:2], dtype=torch.bool, device=h.device)
        return self._runs(self(windows, mask), frame_rate, threshold)

    def _runs(
        self, by_frame: Float[Tensor, "N K"], frame_rate: float, threshold: float
    ) -> list[HeardEvent]:
        found = []
        for k in (by_frame.amax(0) >= threshold).nonzero().flatten().tolist():
            active = (by_frame[:, k] >= threshold).tolist()
            start = None
            for frame, on in enumerate([*active, False]):
                if on and start is None:
                    start = frame
                elif not on and start is not None:
                    highest = float(by_frame[start:frame, k].max())
                    times = start / frame_rate, frame / frame_rate
                    names = self.config.names[k], self.config.labels[k]
                    found.append(HeardEvent(*names, *times, highest))
                    start = None
        return sorted(found, key=lambda event: (event.start_s, -event.probability))

    def save(self, folder: Path) -> None:
        """Writes the head into an encoder's folder."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / _SETTINGS, self.config.model_dump(mode="json"))
        write_weights(folder / _WEIGHTS, self, torch.float16)

    @classmethod
    def load(cls, folder: Path) -> "ClassHead | None":
        """The head in an encoder's folder; None where it has none.

        Raises:
            CheckpointError: one of its two files is missing or damaged, or does not fit the other.
        """
        if not (folder / _SETTINGS).exists() and not (folder / _WEIGHTS).exists():
            return None
        path = folder / _SETTINGS
        settings = read_settings(ClassHeadConfig, read_json(path), path)
        weights = folder / _WEIGHTS
        head = built(lambda: cls(settings), read_weights(weights), str(weights))
        return head.float().eval()
