"""Where LAMB's training clips come from: composed scenes, a manifest of recordings, or synthetic
sounds.

An item is a dict with a caption's `text`, the number of its recording (`clip`), and either cached
`frames` of the frozen encoder or a `waveform`.
"""

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch.utils.data import Dataset

from earwitness import audio
from earwitness.config import Strict
from earwitness.data.captions import normalize
from earwitness.data.manifest import Clip, read_manifest
from earwitness.data.synthetic import synthetic_clip
from earwitness.encoders import load_frame_encoder
from earwitness.errors import DataError
from earwitness.training.pool import Pool, build_pool
from earwitness.training.scene_pool import FrameRows, Scenes

Item = dict[str, Any]


class SceneSource(Strict):
    """Real sounds mixed along human captions; frames of the frozen encoder are cached."""

    kind: Literal["scenes"]
    folder: Path
    """the data folder: train_audio, captions, dev/captions.csv (whose recordings are left out)"""
    scenes: PositiveInt = 30000
    heldout_scenes: NonNegativeInt = 500
    seed: int = 2
    rarity: float = 0.5
    """power of a caption's weight (the rarer its sounds, the higher) in drawing captions"""


class ManifestSource(Strict):
    """Recordings with captions, as in the paper; clips are cut at random to `seconds`."""

    kind: Literal["manifest"]
    train: Path
    validation: Path
    seconds: PositiveFloat = 10.0


class SyntheticSource(Strict):
    """Tones, noise and clicks with true sentences; for a first look and for tests."""

    kind: Literal["synthetic"]
    clips: PositiveInt = 320
    heldout_clips: PositiveInt = 40
    seconds: PositiveFloat = 2.0
    seed: int = 0


Source = Annotated[SceneSource | ManifestSource | SyntheticSource, Field(discriminator="kind")]


class Splits(NamedTuple):
    """Training and validation items, and all training captions (for a new tokenizer)."""

    train: Dataset[Item]
    validation: Dataset[Item]
    captions: list[str]


def open_source(
    source: Source, encoder: Path | None, sample_rate: int, runs: Path, seed: int
) -> Splits:
    """The items of `source`; `runs` holds caches. Raises DataError where files are missing."""
    if isinstance(source, SyntheticSource):
        return _synthetic(source)
    if isinstance(source, ManifestSource):
        clips = [read_manifest(path) for path in (source.train, source.validation)]
        captions = [normalize(text) for clip in clips[0] for text in clip.captions]
        train, validation = (
            Recordings(part, source.seconds, sample_rate, seed, path)
            for part, path in zip(clips, (source.train, source.validation), strict=True)
        )
        return Splits(train, validation, captions)
    if encoder is None:
        raise DataError(
            "scenes need a trained encoder: set the recipe's key 'encoder' to its folder"
        )
    return _scenes(source, encoder, runs)


class Recordings(Dataset[Item]):
    """Clips of a manifest as waveforms, one of their captions and one random cut at each visit."""

    def __init__(
        self, clips: list[Clip], seconds: float, sample_rate: int, seed: int, source: Path
    ) -> None:
        """Raises DataError where a clip has no caption."""
        for clip in clips:
            if not clip.captions:
                raise DataError(
                    f"{source}: clip '{clip.id}' has no caption; training needs at least one"
                )
        self.clips, self.seconds, self.rate, self.seed = clips, seconds, sample_rate, seed

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        index, epoch = key
        clip = self.clips[index]
        rng = np.random.default_rng((self.seed, index, epoch))
        waveform = audio.load(clip.audio, self.rate)
        extra = len(waveform) - round(self.seconds * self.rate)
        if extra > 0:
            start = int(rng.integers(extra + 1))
            waveform = waveform[start : start + len(waveform) - extra]
        text = clip.captions[int(rng.integers(len(clip.captions)))]
        return {"waveform": waveform, "text": normalize(text), "clip": index}


class CachedScenes(Dataset[Item]):
    """Scenes as cached frames."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    def __len__(self) -> int:
        return len(self.pool)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        row = self.pool[key]
        text = row["text"].item().decode()
        return {"frames": row["frames"], "text": text, "clip": int(row["caption"])}


class _Synthetic(Dataset[Item]):
    def __init__(self, source: SyntheticSource, first: int, count: int) -> None:
        self.source, self.first, self.count = source, first, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: tuple[int, int]) -> Item:
        clip = synthetic_clip(self.first + key[0], self.source.seed, self.source.seconds)
        return {"waveform": clip.waveform, "text": clip.caption, "clip": key[0]}


def collate(items: list[Item]) -> dict[str, Any]:
    """Items as one batch: frames stacked, or waveforms padded with their lengths in samples."""
    batch: dict[str, Any] = {
        "texts": [item["text"] for item in items],
        "clip": torch.tensor([item["clip"] for item in items]),
    }
    if "frames" in items[0]:
        return batch | {"frames": torch.from_numpy(np.stack([item["frames"] for item in items]))}
    waveforms = [torch.from_numpy(item["waveform"]) for item in items]
    return batch | {
        "waveforms": torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True),
        "lengths": torch.tensor([len(w) for w in waveforms]),
    }


def _synthetic(source: SyntheticSource) -> Splits:
    train = _Synthetic(source, 0, source.clips)
    heldout = _Synthetic(source, source.clips, source.heldout_clips)
    return Splits(train, heldout, [train[(i, 0)]["text"] for i in range(source.clips)])


def _scenes(source: SceneSource, encoder: Path, runs: Path) -> Splits:
    code = hashlib.sha256((encoder / "model.safetensors").read_bytes()).hexdigest()[:12]
    dim = load_frame_encoder(encoder).dim
    sides: list[tuple[str, int, Literal["train", "heldout"], Literal["train", "val"]]] = [
        ("train", source.scenes, "train", "train"),
        ("heldout", source.heldout_scenes, "heldout", "val"),
    ]
    cached = []
    for name, size, split, captions in sides:
        rarity = source.rarity if split == "train" else 0.0
        scenes = Scenes(
            source.folder, runs / "cache", source.seed, "captions", split, captions, rarity=rarity
        )
        maker = FrameRows(scenes, encoder.resolve(), code, dim)
        pool = build_pool(runs / "pool" / f"frames-{name}-{source.seed}-{size}-{code}", size, maker)
        cached.append(CachedScenes(pool))
    texts = [text.decode() for text in cached[0].pool.arrays["text"].tolist()]
    return Splits(cached[0], cached[1], texts)
