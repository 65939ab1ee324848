"""Training scenes as a source of recipes: real sounds mixed to match human captions."""

from pathlib import Path
from typing import Literal

from pydantic import NonNegativeInt, PositiveInt
from torch.utils.data import Dataset

from earwitness.encoders import load_frame_encoder
from earwitness.errors import DataError
from earwitness.io.digests import sha256_of
from earwitness.training.pool import Pool, build_pool
from earwitness.training.source import Item, Opening, SourceConfig, Splits
from earwitness_lab.pocket.scene_pool import FrameRows, Scenes


class SceneSource(SourceConfig):
    """Real sounds mixed to match human captions; frames of the frozen encoder are cached."""

    kind: Literal["scenes"]
    folder: Path
    """the data folder: train_audio, captions, dev/captions.csv (whose recordings are left out)"""
    scenes: PositiveInt = 30000
    heldout_scenes: NonNegativeInt = 500
    seed: int = 2
    rarity: float = 0.5
    """power of a caption's weight (the rarer its sounds, the higher) in drawing captions"""
    clotho: bool = True
    """Clotho's captions beside those of AudioCaps"""

    def open(self, opening: Opening) -> Splits:
        """Scenes as cached frames of the encoder. Raises DataError without a trained encoder."""
        if opening.encoder is None:
            raise DataError(
                "scenes need a trained encoder: set the recipe's key 'encoder' to its folder"
            )
        return _scenes(self, opening.encoder, opening.runs)


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


def _scenes(source: SceneSource, encoder: Path, runs: Path) -> Splits:
    code = sha256_of(encoder / "model.safetensors")[:12]
    dim = load_frame_encoder(encoder).dim
    sides: list[tuple[str, int, Literal["train", "heldout"], Literal["train", "val"]]] = [
        ("train", source.scenes, "train", "train"),
        ("heldout", source.heldout_scenes, "heldout", "val"),
    ]
    cached = []
    for name, size, split, captions in sides:
        rarity = source.rarity if split == "train" else 0.0
        scenes = Scenes(
            source.folder,
            runs / "cache",
            source.seed,
            "captions",
            split,
            captions,
            rarity=rarity,
            clotho=source.clotho,
        )
        maker = FrameRows(scenes, encoder.resolve(), code, dim)
        pool = build_pool(runs / "pool" / f"frames-{name}-{source.seed}-{size}-{code}", size, maker)
        cached.append(CachedScenes(pool))
    texts = [text.decode() for text in cached[0].pool.arrays["text"].tolist()]
    return Splits(cached[0], cached[1], texts)
