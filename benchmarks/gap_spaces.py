"""Sounds, captions and the spaces of `gap_gain.py`: small CLAPs with a gap of a chosen size.

Everything comes from frozen parts of the pocket models: frames of the encoder, mean states of the
text tower, the language model. What is trained per space are the two heads of the dual encoder.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from earwitness import audio
from earwitness.encoders.dual import DualEncoder, one_frame
from earwitness.lamb.aligner import caption_codes, info_nce
from earwitness.system.captioner import TorchCaptioner
from earwitness.training.embeddings import Pairs
from earwitness.training.source import Opening, Splits
from earwitness_lab.pocket.development import read_development
from earwitness_lab.pocket.ears_source import EarsSource
from earwitness_lab.pocket.scene_source import SceneSource
from earwitness_lab.scenes.lexicon import Lexicon

SCENES, SINGLES, HELDOUT = 2000, 4000, 300
"""training pairs: scenes of AudioCaps captions, then recordings of one sound with a sentence for
its class; held-out scenes, even ones for selection and odd ones for reporting"""
POOL = 48_000
"""scenes of pocket-link's own recipe, from which further training pairs are taken"""
DIM, HIDDEN = 64, 256
RECORDINGS, TEST_SCENES = "recordings", "scenes"
TITLES = {RECORDINGS: "development recordings", TEST_SCENES: "held-out scenes"}
"""sets that are reported on; recordings are captioned too"""


class Sounds(NamedTuple):
    """Frames of N sounds, M captions, and whose they are."""

    frames: np.ndarray
    count: np.ndarray
    owner: np.ndarray
    captions: list[str]

    @property
    def references(self) -> list[list[str]]:
        """The captions of each sound."""
        found: list[list[str]] = [[] for _ in self.frames]
        for owner, text in zip(self.owner, self.captions, strict=True):
            found[owner].append(text)
        return found

    def part(self, rows: slice) -> "Sounds":
        """Some of the sounds, where each has one caption."""
        frames = self.frames[rows]
        return Sounds(frames, self.count[rows], np.arange(len(frames)), self.captions[rows])

    def batch(self, rows: Sequence[int] | np.ndarray) -> tuple[Tensor, Tensor]:
        """Frames of some sounds, and where they are real."""
        kept = np.arange(self.frames.shape[1])[None] < self.count[rows, None]
        return torch.from_numpy(self.frames[rows].astype(np.float32)), torch.from_numpy(kept)


@dataclass
class World:
    """The sounds of all sets, and the frozen parts that read them."""

    data: Path
    runs: Path
    more: int = 0
    """further scenes among the training pairs"""

    @cached_property
    def captioner(self) -> TorchCaptioner:
        """pocket-link: its text tower and language model; neither is trained here."""
        return TorchCaptioner.load("pocket-link").requires_grad_(False)

    @cached_property
    def dual(self) -> DualEncoder:
        """Its dual encoder."""
        encoder = self.captioner.encoder
        assert isinstance(encoder.encoder, DualEncoder)
        return encoder.encoder

    @cached_property
    def sets(self) -> dict[str, Sounds]:
        """`train`, `validation`, and the two that are reported on."""
        scenes = self._heldout_scenes()
        return {
            "train": self._train(),
            "validation": scenes.part(slice(0, None, 2)),
            TEST_SCENES: scenes.part(slice(1, None, 2)),
            RECORDINGS: self._recordings(),
        }

    @cached_property
    def states(self) -> dict[str, Tensor]:
        """Caption -> the mean state of the text tower, at norm 1."""
        texts = sorted({text for sounds in self.sets.values() for text in sounds.captions})

        def states() -> Tensor:
            head, dim = self.dual.text_head, self.dual.dim
            # A head starts with a LayerNorm, for which the norm of what it gets does not matter.
            self.dual.text_head, self.dual.dim = nn.Identity(), self.dual.config.text.hidden
            rows = self.dual.embed_text(texts)
            self.dual.text_head, self.dual.dim = head, dim
            return rows

        return self._kept("states", texts, states)

    @cached_property
    def tokens(self) -> dict[str, Tensor]:
        """Training caption -> the token that pocket-link's own projector makes of it."""
        texts = sorted(set(self.sets["train"].captions))

        def tokens() -> Tensor:
            embedded = one_frame(self.dual.embed_text(texts))
            return self.captioner.prefix(*embedded, side="text")[0][:, 0]

        return self._kept("tokens", texts, tokens)

    @cached_property
    def alike(self) -> list[list[int]]:
        """For each training pair up to five whose captions describe the same sounds, its own first:
        equal plans of the lexicon, so that one mix is described by all of them.
        """
        lexicon, captions = Lexicon.load(), self.sets["train"].captions
        plans = [repr(lexicon.parse(text)) for text in captions]
        groups: dict[str, dict[str, int]] = {}
        for row, (plan, text) in enumerate(zip(plans, captions, strict=True)):
            groups.setdefault(plan, {}).setdefault(text, row)
        rows = []
        for row, (plan, text) in enumerate(zip(plans, captions, strict=True)):
            others = [r for said, r in groups[plan].items() if said != text and plan != "None"]
            drawn = np.random.default_rng(row).permutation(others)[:4]
            rows.append([row, *map(int, drawn)])
        return rows

    @torch.no_grad()
    def _kept(self, name: str, texts: list[str], make: Callable[[], Tensor]) -> dict[str, Tensor]:
        path = self.runs / "pool" / f"{name}-{len(texts)}.npy"
        if not path.exists():
            np.save(path, make().numpy())
        return dict(zip(texts, torch.from_numpy(np.load(path)), strict=True))

    def _train(self) -> Sounds:
        source = EarsSource(
            kind="ears", folder=self.data, scenes=SCENES, singles=SINGLES, plain=0, heldout=1
        )
        items = source.open(Opening(self._encoder, 16000, self.runs, 0)).train
        # The source has its recordings first.
        order = [*range(SINGLES, SINGLES + SCENES), *range(SINGLES)]
        more = self._scenes.train
        rows = [items[(n, 0)] for n in order] + [more[(n, 0)] for n in range(self.more)]
        return _sounds(rows)

    def _heldout_scenes(self) -> Sounds:
        items = self._scenes.validation
        return _sounds([items[(n, 0)] for n in range(HELDOUT)])

    @cached_property
    def _scenes(self) -> Splits:
        """Those of pocket-link's own recipe; the training ones only if there are to be more."""
        source = SceneSource(
            kind="scenes", folder=self.data, scenes=POOL if self.more else 1,
            heldout_scenes=HELDOUT, rarity=0.0, clotho=False,
        )  # fmt: skip
        return source.open(Opening(self._encoder, 16000, self.runs, 0))

    def _recordings(self) -> Sounds:
        files, references = read_development(self.data)
        kept = self.runs / "pool" / f"development-{len(files)}.npz"
        if not kept.exists():
            found = []
            for file in files:
                waveform = torch.from_numpy(audio.load(file, self.dual.sample_rate))[None]
                with torch.inference_mode():
                    frames = self.dual.frames(waveform, torch.tensor([waveform.shape[1]]))
                found.append({"frames": frames.h[0, :63].numpy(), "text": ""})
            sounds = _sounds(found)
            np.savez(kept, frames=sounds.frames, count=sounds.count)
        arrays = np.load(kept)
        owner = np.repeat(np.arange(len(files)), [len(texts) for texts in references])
        texts = [text for group in references for text in group]
        return Sounds(arrays["frames"], arrays["count"], owner, texts)

    @property
    def _encoder(self) -> Path:
        import earwitness

        return Path(earwitness.__file__).parent / "models" / "pocket-lamb" / "encoder"


def _sounds(items: Sequence[dict]) -> Sounds:
    most = max(len(item["frames"]) for item in items)
    frames = np.zeros((len(items), most, items[0]["frames"].shape[1]), np.float16)
    for row, item in enumerate(items):
        frames[row, : len(item["frames"])] = item["frames"]
    count = np.array([len(item["frames"]) for item in items])
    return Sounds(frames, count, np.arange(len(items)), [item["text"] for item in items])


@dataclass(frozen=True)
class Level:
    """A CLAP: its temperature, which stays, its batch, and its updates."""

    name: str
    temperature: float
    batch: int
    updates: int


class Space(NamedTuple):
    """The embeddings of all sets in one space."""

    pairs: dict[str, Pairs]

    def moved(self, offset: np.ndarray) -> "Space":
        """The same with `offset` added to every audio embedding, at norm 1 again."""
        return Space({n: p._replace(audio=_unit(p.audio + offset)) for n, p in self.pairs.items()})

    def first(self, count: int) -> "Space":
        """The first `count` training pairs."""
        train = self.pairs["train"]
        few = train._replace(audio=train.audio[:count]).first(count)
        return Space(self.pairs | {"train": few})

    def gap(self, name: str = "train", bridged: np.ndarray | None = None) -> dict[str, float]:
        """Distance of the centroids, and the mean cosine of pairs."""
        pairs = self.pairs[name]
        sounds = pairs.audio if bridged is None else bridged
        share = 1 / np.bincount(pairs.owner)[pairs.owner] / len(sounds)
        distance = np.linalg.norm(sounds.mean(0) - share @ pairs.text)
        cosine = share @ (sounds[pairs.owner] * pairs.text).sum(1)
        return {"centroid_distance": float(distance), "paired_cosine": float(cosine)}


def offset_to(space: Space, distance: float) -> np.ndarray:
    """The vector along the gap that, added to the audio of `space`, brings the distance of the
    centroids of its training pairs to `distance`.
    """
    train = space.pairs["train"]
    direction = train.audio.mean(0) - train.text[train.owner].mean(0)
    direction /= np.linalg.norm(direction)
    low, high = 0.0, 20.0
    for _ in range(40):
        middle = (low + high) / 2
        wide = space.moved(middle * direction).gap()["centroid_distance"] > distance
        low, high = (low, middle) if wide else (middle, high)
    return (middle * direction).astype(np.float32)


def train_space(world: World, level: Level, seed: int) -> Space:
    """The heads of a dual encoder, trained by the symmetric contrastive loss at a fixed
    temperature, and what they make of all sets.
    """
    config = world.dual.config.model_copy(update={"dim": DIM, "hidden": HIDDEN})
    # After the model is loaded, which draws random numbers too.
    torch.manual_seed(seed)
    heads = DualEncoder(world.dual.frames, world.dual.tokenizer, config)
    audio_head, text_head = heads.audio_head, heads.text_head
    weights = [*audio_head.parameters(), *text_head.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=1e-3, weight_decay=0.05)
    train = world.sets["train"]
    states = torch.stack([world.states[text] for text in train.captions])
    codes, rng = caption_codes(train.captions, torch.device("cpu")), np.random.default_rng(seed)
    for _ in range(level.updates):
        rows = rng.choice(len(train.frames), level.batch, replace=False)
        frames, mask = train.batch(rows)
        kept = mask & (torch.rand(mask.shape) >= 0.3)
        kept[:, 0] = True
        sides = audio_head(frames, kept), text_head(states[rows])
        loss = info_nce(*sides, 1 / level.temperature, codes[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    audio_head.eval(), text_head.eval()
    return Space({name: _embed(world, heads, sounds) for name, sounds in world.sets.items()})


@torch.no_grad()
def _embed(world: World, heads: DualEncoder, sounds: Sounds) -> Pairs:
    vectors = [
        heads.audio_head(*sounds.batch(np.arange(start, min(start + 256, len(sounds.frames)))))
        for start in range(0, len(sounds.frames), 256)
    ]
    states = torch.stack([world.states[text] for text in sounds.captions])
    text = normalize(heads.text_head(states), dim=1).numpy()
    return Pairs(_unit(torch.cat(vectors).numpy()), text, sounds.owner, sounds.captions)


def _unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
