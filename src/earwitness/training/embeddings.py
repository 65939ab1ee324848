"""Embeddings of a frozen encoder, computed once and kept on disk: what bridges and Diffusion-Link's
captioner train on.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from earwitness import audio
from earwitness.data.manifest import Clip, read_manifest
from earwitness.data.prepare.packed import PackedFile
from earwitness.encoders import load_embedding_encoder
from earwitness.encoders.base import EmbeddingEncoder
from earwitness.encoders.dual import DualEncoder
from earwitness.errors import ConfigError, DataError
from earwitness.models.weights import read_json, write_json
from earwitness.text import normalize
from earwitness.training.progress import tracked
from earwitness.training.source import Opening
from earwitness.training.sources import ManifestSource, Source

_BATCH = 256


class Pairs(NamedTuple):
    """Embeddings of N clips and of their M captions; caption m belongs to clip `owner[m]`."""

    audio: np.ndarray
    text: np.ndarray
    owner: np.ndarray
    captions: list[str]

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Audio and text of the M pairs, row by row."""
        return torch.from_numpy(self.audio[self.owner]), torch.from_numpy(self.text)

    def first(self, count: int) -> "Pairs":
        """The first `count` captions, and all clips."""
        return Pairs(self.audio, self.text[:count], self.owner[:count], self.captions[:count])

    def half(self, odd: bool) -> "Pairs":
        """Every second clip with its captions."""
        clips = np.arange(len(self.audio)) % 2 == int(odd)
        rows = clips[self.owner]
        number = np.cumsum(clips) - 1
        captions = [text for text, kept in zip(self.captions, rows, strict=True) if kept]
        return Pairs(self.audio[clips], self.text[rows], number[self.owner[rows]], captions)


class EmbeddingSplits(NamedTuple):
    """Pairs for training, for selection, and for reporting.

    The held-out clips alternate: even ones are for selection, odd ones for reporting.
    """

    train: Pairs
    validation: Pairs
    test: Pairs


class PairItems(Dataset[dict[str, Any]]):
    """Pairs as items of the training loop."""

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs.text)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        row = key[0]
        clip = int(self.pairs.owner[row])
        return {
            "audio": self.pairs.audio[clip],
            "text": self.pairs.text[row],
            "caption": self.pairs.captions[row],
            "clip": clip,
        }


def collate_pairs(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Items as one batch."""
    return {
        "audio": torch.from_numpy(np.stack([item["audio"] for item in items])),
        "text": torch.from_numpy(np.stack([item["text"] for item in items])),
        "captions": [item["caption"] for item in items],
        "clip": torch.tensor([item["clip"] for item in items]),
    }


def fresh_generator(device: torch.device | None = None) -> torch.Generator:
    """A generator seeded from torch's own random numbers, which the training loop saves."""
    seed = int(torch.randint(2**62, ()))
    return torch.Generator(device or "cpu").manual_seed(seed)


def open_embeddings(source: Source, encoder: Path, runs: Path) -> EmbeddingSplits:
    """The pairs of `source` under the embedding encoder in the folder `encoder`; cached in `runs`.

    Raises:
        DataError: files are missing, or a clip has no caption. ConfigError: scenes with an encoder
        that has no frames to cache.
    """
    code = hashlib.sha256(source.model_dump_json().encode())
    for weights in sorted(encoder.rglob("*.safetensors")):
        code.update(hashlib.sha256(weights.read_bytes()).digest())
    folder = runs / "embeddings" / code.hexdigest()[:16]
    if not (folder / "train" / "captions.json").exists():
        loaded = load_embedding_encoder(encoder)
        for name, pairs in zip(
            ("heldout", "train"), _embed(source, loaded, encoder, runs), strict=True
        ):
            _write(folder / name, pairs)
    heldout = _read(folder / "heldout")
    return EmbeddingSplits(_read(folder / "train"), heldout.half(odd=False), heldout.half(odd=True))


def embed_clips(
    encoder: EmbeddingEncoder, files: Sequence[Path | PackedFile], captions: Sequence[Sequence[str]]
) -> Pairs:
    """Pairs of whole recordings, each with all its captions."""
    vectors = []
    for path in tracked(files, "embedding recordings", disable=len(files) < _BATCH):
        waveform = torch.from_numpy(audio.load(path, encoder.sample_rate))
        vectors.append(encoder.embed_audio([waveform]).cpu().numpy())
    owner = np.repeat(np.arange(len(files)), [len(texts) for texts in captions])
    texts = [normalize(text) for group in captions for text in group]
    return Pairs(np.concatenate(vectors), encoder.embed_text(texts).cpu().numpy(), owner, texts)


def _embed(source: Source, encoder: EmbeddingEncoder, folder: Path, runs: Path) -> Iterator[Pairs]:
    """Held-out, then training pairs."""
    if isinstance(source, ManifestSource):
        for paths in ((source.validation,), source.train_files):
            clips = []
            for path in paths:
                clips += read_manifest(path)
                _check_captions(clips, path)
            yield embed_clips(encoder, [c.audio for c in clips], [c.captions for c in clips])
        return
    if source.kind == "scenes" and not isinstance(encoder, DualEncoder):
        raise ConfigError(
            f"{folder}: scenes are cached as frames of a dual encoder; with a CLAP folder a "
            "manifest of recordings is expected"
        )
    splits = source.open(Opening(folder / "audio", encoder.sample_rate, runs, 0))
    for items in (splits.validation, splits.train):
        yield _embed_items(encoder, items)


def _embed_items(encoder: EmbeddingEncoder, items: Dataset[dict[str, Any]]) -> Pairs:
    vectors, texts, captions = [], [], []
    count = len(items)  # type: ignore[arg-type]
    for start in tracked(range(0, count, _BATCH), "embedding"):
        rows = [items[(i, 0)] for i in range(start, min(count, start + _BATCH))]
        captions += [row["text"] for row in rows]
        with torch.no_grad():
            vectors.append(_audio_vectors(encoder, rows).cpu().numpy())
            texts.append(encoder.embed_text([row["text"] for row in rows]).cpu().numpy())
    return Pairs(np.concatenate(vectors), np.concatenate(texts), np.arange(count), captions)


def _audio_vectors(encoder: EmbeddingEncoder, rows: list[dict[str, Any]]) -> Tensor:
    if "waveform" in rows[0]:
        return encoder.embed_audio([torch.from_numpy(row["waveform"]) for row in rows])
    assert isinstance(encoder, DualEncoder)
    h = torch.from_numpy(np.stack([row["frames"] for row in rows])).float().to(encoder.device)
    return encoder.embed_frames(h, torch.ones(h.shape[:2], dtype=torch.bool, device=h.device))


def _check_captions(clips: list[Clip], path: Path) -> None:
    for clip in clips:
        if not clip.captions:
            raise DataError(f"{path}: clip '{clip.id}' has no caption; at least one is needed")


def _write(folder: Path, pairs: Pairs) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("audio", "text", "owner"):
        np.save(folder / f"{name}.npy", getattr(pairs, name), allow_pickle=False)
    write_json(folder / "captions.json", {"captions": pairs.captions})


def _read(folder: Path) -> Pairs:
    arrays = {
        name: np.load(folder / f"{name}.npy", allow_pickle=False)
        for name in ("audio", "text", "owner")
    }
    return Pairs(
        arrays["audio"],
        arrays["text"],
        arrays["owner"],
        read_json(folder / "captions.json")["captions"],
    )
