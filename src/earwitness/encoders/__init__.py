"""Audio encoders and their folders: frames (LAMB) or one embedding a clip (Diffusion-Link)."""

from pathlib import Path
from typing import Any

import torch

from earwitness.encoders.base import FrameEncoder
from earwitness.encoders.dual import EmbeddingFrames, one_frame
from earwitness.encoders.embedding import (
    is_embedding_folder,
    load_embedding_encoder,
    save_embedding_encoder,
)
from earwitness.encoders.frame import FRAME_ENCODERS, load_frame_encoder, save_frame_encoder

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


def save_encoder(encoder: Any, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Writes a captioner's encoder, of frames or of embeddings, to `folder`."""
    if isinstance(encoder, EmbeddingFrames):
        save_embedding_encoder(encoder.encoder, folder, dtype)
    else:
        save_frame_encoder(encoder, folder, dtype)


def load_encoder(folder: Path, audio: Path | None = None) -> FrameEncoder:
    """What a captioner hears with: the frame encoder of `folder`, or its embedding encoder as one.

    `audio` names the folder of the frame encoder inside an embedding encoder where it is elsewhere.

    Raises:
        CheckpointError: a file is missing or damaged, the kind unknown, or a weight does not fit.
    """
    if is_embedding_folder(folder):
        return EmbeddingFrames(load_embedding_encoder(folder, audio))
    return load_frame_encoder(folder)
