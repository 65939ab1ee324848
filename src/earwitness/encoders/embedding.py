"""Folders of embedding encoders: ours ("dual"), or an unchanged Hugging Face CLAP folder.

A dual folder holds `config.json`, `model.safetensors` (heads and text tower), the tokenizer, and
`audio/`, the folder of its frame encoder.
"""

from pathlib import Path
from typing import Any

import torch

from earwitness.encoders.base import EmbeddingEncoder
from earwitness.encoders.clap import ClapEncoder
from earwitness.encoders.dual import DualConfig, DualEncoder
from earwitness.encoders.frame import load_frame_encoder, save_frame_encoder
from earwitness.errors import CheckpointError
from earwitness.models.foreign import check_files, foreign_errors
from earwitness.models.hub import WeightsOrigin
from earwitness.models.weights import (
    check_fit,
    load_weights,
    read_json,
    read_settings,
    read_weights,
    write_json,
    write_weights,
)

AUDIO = "audio"
"""subfolder of a dual folder that holds the frame encoder"""


def save_embedding_encoder(
    encoder: DualEncoder | ClapEncoder, folder: Path, dtype: torch.dtype | None = None
) -> None:
    """Writes the folder that `load_embedding_encoder` reads; `dtype` does not apply to CLAP."""
    if isinstance(encoder, ClapEncoder):
        encoder.save(folder)
        return
    write_json(folder / "config.json", {"kind": "dual", **encoder.config.model_dump(mode="json")})
    write_weights(folder / "model.safetensors", encoder.own_parts(), dtype)
    encoder.tokenizer.save_pretrained(folder)
    save_frame_encoder(encoder.frames, folder / AUDIO, dtype)  # type: ignore[arg-type]


def load_embedding_encoder(folder: Path, audio: Path | None = None) -> EmbeddingEncoder:
    """The encoder in `folder`; `audio` is the folder of its frame encoder if it is elsewhere.

    Raises:
        CheckpointError: a file is missing or damaged, or the folder holds no embedding encoder.
    """
    config = read_json(folder / "config.json")
    if config.get("model_type") == "clap":
        clap = ClapEncoder.from_folder(folder)
        clap.origin = WeightsOrigin(folder)
        return clap
    kind = config.pop("kind", None)
    if kind != "dual":
        raise CheckpointError(
            f"{folder}: unknown embedding encoder kind {kind!r}; "
            "expected 'dual' or a Hugging Face CLAP folder"
        )
    settings = read_settings(DualConfig, config, folder / "config.json")
    frames = load_frame_encoder(audio or folder / AUDIO)
    tokenizer = _tokenizer(folder)
    state = read_weights(folder / "model.safetensors")
    with foreign_errors(folder, "a dual encoder that can be built"):
        with torch.device("meta"):
            check_fit(DualEncoder(frames, tokenizer, settings).own_parts(), state, str(folder))
        encoder = DualEncoder(frames, tokenizer, settings)
    load_weights(encoder.own_parts(), state, str(folder))
    encoder.origin = WeightsOrigin(folder)
    return encoder.requires_grad_(False).eval()


def is_embedding_folder(folder: Path) -> bool:
    """Whether `folder` holds an embedding encoder rather than a frame encoder."""
    config = read_json(folder / "config.json")
    return config.get("kind") == "dual" or config.get("model_type") == "clap"


def _tokenizer(folder: Path) -> Any:
    from transformers import PreTrainedTokenizerFast

    for name in ("tokenizer.json", "tokenizer_config.json"):
        read_json(folder / name)
    check_files(folder)
    with foreign_errors(folder, "a readable tokenizer"):
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    if tokenizer.bos_token_id is None:
        raise CheckpointError(f"{folder}: its tokenizer has no start token")
    return tokenizer
