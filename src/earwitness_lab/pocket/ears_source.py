"""Real recordings of one sound, synthetic sounds and scenes together, as a source of recipes."""

import hashlib
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from pydantic import NonNegativeInt, PositiveInt
from torch.utils.data import Dataset

from earwitness.encoders import load_frame_encoder
from earwitness.errors import DataError
from earwitness.training.pool import Pool, build_pool
from earwitness.training.source import Item, Opening, SourceConfig, Splits
from earwitness_lab.pocket.real_pool import EarRows
from earwitness_lab.pocket.real_sound import RealSound, real_sounds
from earwitness_lab.pocket.single_sounds import PLAIN, sentences


class EarsSource(SourceConfig):
    """Scenes matching human captions, beside labeled recordings as they are (at many levels, at
    their own length) with a sentence for their class, and synthetic sounds.

    Frames of the frozen encoder are cached. Held-out recordings are the validation items.
    """

    kind: Literal["ears"]
    folder: Path
    """the data folder: train_audio, more_audio, captions, dev, dev2"""
    scenes: PositiveInt = 3000
    singles: PositiveInt = 2500
    """labeled recordings per epoch: classes by the square root of how many recordings they have"""
    plain: NonNegativeInt = 280
    """synthetic sounds: beeps, alarms, telephones, sirens, tones, noise, near silence"""
    heldout: PositiveInt = 120
    seed: int = 31

    def open(self, opening: Opening) -> Splits:
        """Items as cached frames. Raises DataError without a trained encoder."""
        if opening.encoder is None:
            raise DataError("ears need a trained encoder: set the recipe's key 'encoder'")
        pools = _pools(self, opening.encoder, opening.runs)
        sounds, said = real_sounds(self.folder), sentences()
        labels = {label: number for number, label in enumerate(sorted(said))}
        counts = pools["recordings"].arrays["count"]
        known = [n for n, sound in enumerate(sounds) if sound.label in said and counts[n] > 0]
        train = [number for number in known if not sounds[number].heldout]
        heldout = [number for number in known if sounds[number].heldout]
        chosen = balanced(sounds, train, self.singles, opening.seed)
        real = pools["recordings"]
        items = [Told(real, n, said[sounds[n].label], labels[sounds[n].label]) for n in chosen]
        items += [
            Told(pools["plain"], n, (), len(labels) + n % len(PLAIN)) for n in range(self.plain)
        ]
        items += [Told(pools["scenes"], n, (), -1 - n) for n in range(self.scenes)]
        rng = np.random.default_rng(self.seed)
        few = rng.permutation(heldout)[: self.heldout]
        checks = [
            Told(real, n, said[sounds[n].label][:1], labels[sounds[n].label]) for n in map(int, few)
        ]
        texts = [text for item in items for text in item.texts or (item.own_text(),)]
        return Splits(ToldSounds(items, opening.seed), ToldSounds(checks, 0), texts)


class Told(NamedTuple):
    """A row of a pool, and what may be said about it: `texts`, or the text of the row itself."""

    pool: Pool
    row: int
    texts: tuple[str, ...]
    clip: int
    """rows with the same number are not each other's negatives"""

    def own_text(self) -> str:
        """The text that the row came with."""
        return self.pool.arrays["text"][self.row].item().decode()


class ToldSounds(Dataset[Item]):
    """Frames with one of their sentences, a different one each time."""

    def __init__(self, items: list[Told], seed: int) -> None:
        self.items, self.seed = items, seed

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        index, epoch = key
        told = self.items[index]
        rng = np.random.default_rng((self.seed, index, epoch))
        text = told.texts[int(rng.integers(len(told.texts)))] if told.texts else told.own_text()
        count = int(told.pool.arrays["count"][told.row])
        frames = np.array(told.pool.arrays["frames"][told.row, :count])
        return {"frames": frames, "text": text, "clip": told.clip}


def balanced(sounds: list[RealSound], among: list[int], count: int, seed: int) -> list[int]:
    """`count` of the places `among`: a class is drawn by the square root of its number of sounds,
    then one of its recordings, then one of that recording's excerpts.
    """
    classes: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for number in among:
        classes[sounds[number].label][sounds[number].recording].append(number)
    labels = sorted(classes)
    weights = np.sqrt([sum(map(len, classes[label].values())) for label in labels])
    rng = np.random.default_rng(seed)
    found = []
    for label in rng.choice(labels, size=count, p=weights / weights.sum()):
        groups = list(classes[str(label)].values())
        group = groups[int(rng.integers(len(groups)))]
        found.append(group[int(rng.integers(len(group)))])
    return found


def _pools(source: EarsSource, encoder: Path, runs: Path) -> dict[str, Pool]:
    code = hashlib.sha256((encoder / "model.safetensors").read_bytes()).hexdigest()[:12]
    dim = load_frame_encoder(encoder).dim
    rows = partial(EarRows, source.folder, runs / "cache", encoder, code, dim)
    settings = {
        "recordings": (len(real_sounds(source.folder)), rows("recordings")),
        "scenes": (source.scenes, rows("scenes", source.seed)),
        "plain": (source.plain, rows("plain", source.seed)),
    }
    return {
        name: build_pool(runs / "pool" / f"ears-{name}-{size}-{code}", size, maker)
        for name, (size, maker) in settings.items()
        if size
    }
