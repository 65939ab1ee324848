"""What the pocket stages prepare: scenes with the teacher's answers, and scenes as frames of a
frozen encoder.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import UInt8

from earwitness import audio
from earwitness.data.captions import development_ids, read_audiocaps, read_clotho, without
from earwitness.encoders import load_frame_encoder
from earwitness.encoders.cnn import CNNConfig, pad_to_stride
from earwitness.encoders.log_mel import LogMel
from earwitness.text import normalize
from earwitness.training.pool import RowSource, Shapes
from earwitness_lab.pocket.teacher import MAP_SHAPE, N_EMBEDDING, N_SCORES, Yamnet
from earwitness_lab.scenes import effects
from earwitness_lab.scenes.lexicon import Lexicon
from earwitness_lab.scenes.mixing import Scene, SceneEvent, SceneSet, random_scene
from earwitness_lab.scenes.soundbank import SoundBank, Split

SECONDS = 10.0
RATE = 16000
FRAMES = 1008
"""log-mel frames of a 10 s scene, padded to a multiple of 16"""
TOKENS = 63
TOKEN_RATE = 6.25
PATCHES = 19
MAP_TOKENS = 60
"""frames of 160 ms for which every second patch, end to end, gives the teacher's maps"""
CAPTION_BYTES = 400
"""longest caption kept in a pool"""


@dataclass(frozen=True)
class Scenes:
    """Which scenes: mixed at random, or to match the captions of a split."""

    data: Path = field(repr=False)
    cache: Path = field(repr=False)
    seed: int
    kind: Literal["random", "captions"] = "random"
    split: Split = "train"
    """which side of the recordings the sounds come from"""
    captions: Literal["train", "val"] = "train"
    unlabeled_share: float = 0.0
    """share of random mixes that have a sound of unknown class on top"""
    rarity: float = 1.0
    """power of a caption's weight in drawing captions: the rarer its sounds, the higher; 0: none"""
    clotho: bool = True
    """Clotho's captions beside those of AudioCaps"""

    def open(self) -> Callable[[int], tuple[np.ndarray, Scene, int]]:
        """index -> (waveform, scene, row of the caption in the scene set or -1)."""
        bank = SoundBank.load(self.data / "train_audio", split=self.split, cache=self.cache)
        if self.kind == "captions":
            return self._along_captions(bank)
        unlabeled = sorted((self.data / "distill_audio").glob("*.opus"))

        def make(index: int) -> tuple[np.ndarray, Scene, int]:
            rng = np.random.default_rng((self.seed, index))
            if not unlabeled or rng.random() >= self.unlabeled_share:
                scene = random_scene(bank, rng, SECONDS)
                return scene.waveform, scene, -1
            scene = random_scene(bank, rng, SECONDS, max_events=1)
            sound = audio.load(unlabeled[int(rng.integers(len(unlabeled)))], RATE)
            return _overlay(scene.waveform, sound, rng), Scene(scene.waveform, "", ()), -1

        return make

    def _along_captions(self, bank: SoundBank) -> Callable[[int], tuple[np.ndarray, Scene, int]]:
        scenes = scene_set(self.data, self.captions, bank, self.seed, self.clotho)
        weights = scenes.weights() ** self.rarity
        chances = np.cumsum(weights / weights.sum())

        def make(index: int) -> tuple[np.ndarray, Scene, int]:
            rng = np.random.default_rng((self.seed, index))
            row = min(len(scenes) - 1, int(np.searchsorted(chances, rng.random(), side="right")))
            scene = scenes.scene(row, index)
            return scene.waveform, scene, row

        return make


def scene_set(
    data: Path,
    captions: Literal["train", "val"],
    bank: SoundBank,
    seed: int,
    clotho: bool = True,
) -> SceneSet:
    """The captions of a split that `bank` can play truthfully; those of benchmark recordings are
    left out, and with `clotho` off all but those of AudioCaps.
    """
    folder = data / "captions"
    rows = read_audiocaps(folder / f"audiocaps_{captions}.csv")
    if clotho:
        rows += read_clotho(folder / f"clotho_{captions}.csv")
    kept = without(rows, development_ids(data))
    return SceneSet([row.caption for row in kept], Lexicon.load(), bank, seed)


@dataclass(frozen=True)
class TeacherRows:
    """Rows for distillation: log-mel, the teacher's scores and embedding, the classes in each
    frame, and with `hints` the teacher's maps (a quarter of a megabyte per row).
    """

    scenes: Scenes
    labels: tuple[str, ...]
    hints: bool = field(default=False, repr=False)

    def shapes(self) -> Shapes:
        """Arrays of a row."""
        maps: Shapes = {"maps": ((MAP_TOKENS, *MAP_SHAPE[1:]), "float16")} if self.hints else {}
        return maps | {
            "log_mel": ((64, FRAMES), "float16"),
            "scores": ((PATCHES, N_SCORES), "float16"),
            "embedding": ((PATCHES, N_EMBEDDING), "float16"),
            "classes": (packed_shape(self.labels), "uint8"),
            "known": ((), "bool"),
        }

    def open(self) -> RowSource:
        """Loads the sounds and the teacher."""
        make = self.scenes.open()
        teacher = Yamnet(self.scenes.data / "yamnet")
        log_mel = LogMel(CNNConfig().log_mel)

        def row(index: int) -> dict[str, np.ndarray]:
            waveform, scene, _ = make(index)
            heard = teacher(waveform)
            maps = {"maps": heard.maps[:PATCHES:2].reshape(MAP_TOKENS, *MAP_SHAPE[1:])}
            return (maps if self.hints else {}) | {
                "log_mel": pad_to_stride(log_mel(torch.from_numpy(waveform))).numpy(),
                "scores": heard.scores[:PATCHES],
                "embedding": heard.embedding[:PATCHES],
                "classes": classes_in_frames(scene.events, self.labels),
                "known": np.array(bool(scene.events)),
            }

        return row


def packed_shape(labels: Sequence[str]) -> tuple[int, int]:
    """The shape of what `classes_in_frames` gives."""
    return TOKENS, -(-len(labels) // 8)


def classes_in_frames(
    events: Sequence[SceneEvent], labels: Sequence[str]
) -> UInt8[np.ndarray, "N K8"]:
    """Which of `labels` sound in each frame of 160 ms, eight to a byte (`np.packbits`).

    An event sounds from the frame that holds its start to the one that holds its end.
    """
    number = {label: i for i, label in enumerate(labels)}
    classes = np.zeros((TOKENS, len(labels)), np.uint8)
    for event in events:
        if event.label in number:
            start, end = event.start_s * TOKEN_RATE, np.ceil(event.end_s * TOKEN_RATE)
            classes[int(start) : int(end), number[event.label]] = 1
    return np.packbits(classes, axis=-1)


@dataclass(frozen=True)
class FrameRows:
    """Rows for captioning with a frozen encoder: its frames, and which caption they were mixed
    to match.
    """

    scenes: Scenes
    encoder: Path = field(repr=False)
    encoder_hash: str
    """so that frames of another encoder are never taken for this one's"""
    dim: int

    def shapes(self) -> Shapes:
        """Arrays of a row."""
        return {
            "frames": ((TOKENS, self.dim), "float16"),
            "caption": ((), "int64"),
            "text": ((), f"S{CAPTION_BYTES}"),
        }

    def open(self) -> RowSource:
        """Loads the sounds and the encoder."""
        make = self.scenes.open()
        encoder = load_frame_encoder(self.encoder)

        def row(index: int) -> dict[str, np.ndarray]:
            waveform, scene, caption = make(index)
            with torch.inference_mode():
                clip = torch.from_numpy(waveform)[None]
                frames = encoder(clip, torch.tensor([clip.shape[1]]))
            text = np.array(normalize(scene.caption).encode()[:CAPTION_BYTES])
            return {
                "frames": frames.h[0, :TOKENS].numpy(),
                "caption": np.array(caption),
                "text": text,
            }

        return row


@cache
def known_labels(data: Path, cache_folder: Path) -> tuple[str, ...]:
    """The classes of the training sounds."""
    return SoundBank.load(data / "train_audio", cache=cache_folder).labels


def _overlay(scene: np.ndarray, sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`sound`, looped, up to a third slower or faster, with the scene 0 to 30 dB below it; peak
    below 1.
    """
    speed = np.full(len(sound), np.exp(rng.uniform(-0.3, 0.3)), np.float32)
    sound = effects.varispeed(sound, speed)
    sound = np.resize(np.roll(sound, -int(rng.integers(len(sound)))), scene.shape)
    level = np.sqrt(np.mean(sound**2)) + 1e-6
    below = 10 ** (-rng.uniform(0, 30) / 20) * level / (np.sqrt(np.mean(scene**2)) + 1e-6)
    mixed = sound + below * scene
    gain = 10 ** (rng.uniform(-20, -1) / 20)
    return (mixed / max(1e-4, float(np.abs(mixed).max())) * gain).astype(np.float32)
