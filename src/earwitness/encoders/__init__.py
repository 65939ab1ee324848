"""Audio encoders and their folders: frames (LAMB) or one embedding per clip (Diffusion-Link)."""

from pathlib import Path

import torch

from earwitness.encoders.base import FrameEncoder
from earwitness.encoders.ced import CED
from earwitness.encoders.cnn import CNN
from earwitness.encoders.dual import EmbeddingFrames, one_frame
from earwitness.encoders.embedding import (
    is_embedding_folder,
    load_embedding_encoder,
    save_embedding_encoder,
)
from earwitness.encoders.frame import FRAME_ENCODERS, load_frame_encoder, save_frame_encoder
from earwitness.errors import ConfigError

__all__ = [
    "FRAME_ENCODERS",
    "EmbeddingFrames",
    "load_embedding_encoder",
    "load_encoder",
    "load_frame_encoder",
    "one_frame",
    "save_embedding_encoder",
    "save_encoder",
    "save_frame_encoder",
]


def save_encoder(encoder: FrameEncoder, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Writes a captioner's encoder, of frames or of embeddings, to `folder`.

    Raises:
        ConfigError: the encoder is of another kind.
    """
    if isinstance(encoder, EmbeddingFrames):
        save_embedding_encoder(encoder.encoder, folder, dtype)
    elif isinstance(encoder, CED | CNN):
        save_frame_encoder(encoder, folder, dtype)
    else:
        raise ConfigError(
            f"encoder of type {type(encoder).__name__}: expected a CED, a CNN, or EmbeddingFrames"
        )


def load_encoder(folder: Path, audio: Path | None = None) -> FrameEncoder:
    """A captioner's encoder: the frame encoder in `folder`, or its embedding encoder as one.

    `audio` is the folder of the frame encoder inside an embedding encoder, if it is elsewhere.

    Raises:
        CheckpointError: a file is missing or damaged, the kind is unknown, or a weight does not
            fit.
    """
    if is_embedding_folder(folder):
        return EmbeddingFrames(load_embedding_encoder(folder, audio))
    return load_frame_encoder(folder)
