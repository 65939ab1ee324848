"""The class head of an encoder, for training; `models.sound_classes` is for inference."""

from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from earwitness.models.building import built
from earwitness.models.sound_classes import SETTINGS, WEIGHTS, ClassHeadConfig
from earwitness.models.weights import (
    read_json,
    read_settings,
    read_weights,
    write_json,
    write_weights,
)


class ClassHead(nn.Module):
    """Frames to class probabilities, which sum to 1."""

    def __init__(self, config: ClassHeadConfig) -> None:
        super().__init__()
        self.config = config
        self.linear = nn.Linear(2 * config.dim, len(config.labels))

    def forward(self, h: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"]) -> Float[Tensor, "B K"]:
        """The probability of each class over all frames of a clip, which needs at least one."""
        padding = ~mask[..., None]
        mean = h.masked_fill(padding, 0.0).sum(1) / mask.sum(1, keepdim=True)
        highest = h.masked_fill(padding, -torch.inf).amax(1)
        logits = self.linear(torch.cat([mean, highest], dim=1).float())
        return (logits / self.config.temperature).softmax(dim=1)

    def save(self, folder: Path) -> None:
        """Writes the head to an encoder's folder."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / SETTINGS, self.config.model_dump(mode="json"))
        write_weights(folder / WEIGHTS, self, torch.float16)

    @classmethod
    def load(cls, folder: Path) -> "ClassHead | None":
        """The head in an encoder's folder; None if there is none.

        Raises:
            CheckpointError: one of its two files is missing or damaged, or they do not match.
        """
        if not (folder / SETTINGS).exists() and not (folder / WEIGHTS).exists():
            return None
        path, weights = folder / SETTINGS, folder / WEIGHTS
        settings = read_settings(ClassHeadConfig, read_json(path), path)
        head = built(lambda: cls(settings), read_weights(weights), str(weights))
        return head.float().eval()
