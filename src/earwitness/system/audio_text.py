"""A CLAP for reranking: sounds and sentences to unit vectors in numpy, computed by torch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from earwitness.encoders import load_embedding_encoder
from earwitness.encoders.base import EmbeddingEncoder
from earwitness.encoders.embedding import is_embedding_folder
from earwitness.errors import CheckpointError
from earwitness.models.names import model_folder, part_folder
from earwitness.models.weights import read_json


class TorchAudioText:
    """An embedding encoder that takes and returns numpy arrays, always in full precision."""

    def __init__(self, encoder: EmbeddingEncoder) -> None:
        self.encoder, self.sample_rate = encoder, encoder.sample_rate

    @classmethod
    def load(cls, name: str | Path, device: str = "cpu") -> "TorchAudioText":
        """The encoder that `name` stands for, as in `encoder_folders`. Raises CheckpointError."""
        encoder = load_embedding_encoder(*encoder_folders(name))
        return cls(encoder.to(device))  # type: ignore[attr-defined]

    @torch.inference_mode()
    def embed_audio(self, waveforms: Sequence[Float[np.ndarray, " _"]]) -> Float[np.ndarray, "B C"]:
        """Unit-norm embeddings of mono waveforms of any length at `sample_rate`."""
        clips = [torch.from_numpy(np.ascontiguousarray(w)).float() for w in waveforms]
        with self._full_precision():
            return self.encoder.embed_audio(clips).cpu().numpy()

    @torch.inference_mode()
    def embed_text(self, texts: Sequence[str]) -> Float[np.ndarray, "B C"]:
        """Unit-norm embeddings of sentences."""
        with self._full_precision():
            return self.encoder.embed_text(list(texts)).cpu().numpy()

    def _full_precision(self) -> torch.autocast:
        kind = next(self.encoder.parameters()).device.type  # type: ignore[attr-defined]
        return torch.autocast(kind, enabled=False)


def encoder_folders(name: str | Path) -> tuple[Path, Path | None]:
    """The folder of the embedding encoder that `name` stands for, and that of its frame encoder
    if it is elsewhere.

    Raises:
        CheckpointError: there is no such folder, or its encoder does not read text.
    """
    folder, audio = model_folder(name), None
    if (folder / "earwitness.json").is_file():
        settings = read_json(folder / "earwitness.json")
        audio = part_folder(folder, "encoder/audio", settings)
        folder = part_folder(folder, "encoder", settings)
    if not is_embedding_folder(folder):
        raise CheckpointError(
            f"{name}: its encoder does not read text; expected a Diffusion-Link model, or the "
            "folder of a dual encoder or of a Hugging Face CLAP"
        )
    return folder, audio
