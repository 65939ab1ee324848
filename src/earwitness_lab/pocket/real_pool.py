"""Rows of real recordings, synthetic sounds and scenes as frames of a frozen encoder, at the length
that each has.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32

from earwitness import audio
from earwitness.encoders import load_frame_encoder
from earwitness.errors import AudioError
from earwitness.text import normalize
from earwitness.training.pool import RowSource, Shapes
from earwitness_lab.pocket.real_sound import real_sounds
from earwitness_lab.pocket.scene_pool import CAPTION_BYTES, RATE, SECONDS, TOKENS, Scenes
from earwitness_lab.pocket.single_sounds import plain_sound
from earwitness_lab.scenes import effects

QUIETEST_DB = -40.0
"""recordings are played at their own level down to this much below it"""
SHORTEST_S = 0.3

Sounds = Callable[[int], tuple[Float32[np.ndarray, " T"], str]]
"""index -> a waveform at 16 kHz, and the text that it was mixed for (empty for a recording)"""

Change = Callable[[Float32[np.ndarray, " T"], np.random.Generator], Float32[np.ndarray, " S"]]
"""a waveform at 16 kHz and random numbers -> the waveform in another form, of any length"""


@dataclass(frozen=True)
class EarRows:
    """Rows with the encoder's frames and their number.

    `recordings` are those of `real_sounds`, in its order, each at a random level, `elsewhere` the
    same as another device would have recorded them in another place; `plain` are computed
    (`single_sounds.plain_sound`); `scenes` are mixed to match captions.
    """

    data: Path = field(repr=False)
    cache: Path = field(repr=False)
    encoder: Path = field(repr=False)
    encoder_hash: str
    """so that frames of another encoder are never taken for this one's"""
    dim: int
    kind: Literal["recordings", "elsewhere", "plain", "scenes"]
    seed: int = 0

    def shapes(self) -> Shapes:
        """Arrays of a row; `count` says how many frames are real: 0 for a damaged file."""
        return {
            "text": ((), f"S{CAPTION_BYTES}"),
            "frames": ((TOKENS, self.dim), "float16"),
            "count": ((), "int16"),
        }

    def open(self) -> RowSource:
        """Loads the sounds and the encoder."""
        makers = {
            "recordings": partial(self._recordings, at_some_level),
            "elsewhere": partial(self._recordings, elsewhere),
            "plain": self._plain,
            "scenes": self._scenes,
        }
        make: Sounds = makers[self.kind]()
        encoder = load_frame_encoder(self.encoder)

        def row(index: int) -> dict[str, np.ndarray]:
            try:
                waveform, text = make(index)
            except AudioError:
                return {"count": np.array(0)}
            with torch.inference_mode():
                clip = torch.from_numpy(waveform)[None]
                frames = encoder(clip, torch.tensor([clip.shape[1]])).h[0, :TOKENS].numpy()
            return {
                "text": np.array(normalize(text).encode()[:CAPTION_BYTES]),
                "frames": np.pad(frames, ((0, TOKENS - len(frames)), (0, 0))),
                "count": np.array(len(frames)),
            }

        return row

    def _recordings(self, change: Change) -> Sounds:
        recordings = real_sounds(self.data)

        def make(index: int) -> tuple[Float32[np.ndarray, " T"], str]:
            waveform = audio.load(recordings[index].path, RATE)[: round(SECONDS * RATE)]
            missing = max(0, round(SHORTEST_S * RATE) - len(waveform))
            waveform = np.pad(waveform, (0, missing)).astype(np.float32)
            return change(waveform, np.random.default_rng((self.seed, index))), ""

        return make

    def _plain(self) -> Sounds:
        def make(index: int) -> tuple[Float32[np.ndarray, " T"], str]:
            waveform, _, said = plain_sound(index, self.seed, RATE)
            return waveform, said

        return make

    def _scenes(self) -> Sounds:
        scenes = Scenes(self.data, self.cache, self.seed, "captions", rarity=0.5, clotho=False)
        mix = scenes.open()

        def make(index: int) -> tuple[Float32[np.ndarray, " T"], str]:
            waveform, scene, _ = mix(index)
            return waveform, scene.caption

        return make


def at_some_level(
    waveform: Float32[np.ndarray, " T"], rng: np.random.Generator
) -> Float32[np.ndarray, " T"]:
    """`waveform` 0 to 40 dB quieter two times out of three, over noise 35 to 80 dB below full scale
    half of these times; the third time unchanged.
    """
    if rng.random() < 1 / 3:
        return waveform
    quieter = waveform * np.float32(10 ** (rng.uniform(QUIETEST_DB, 0.0) / 20))
    if rng.random() < 0.5:
        level = np.float32(10 ** (rng.uniform(-80.0, -35.0) / 20))
        quieter = quieter + effects.noise(len(waveform), rng, RATE) * level
    return quieter


def elsewhere(
    waveform: Float32[np.ndarray, " T"], rng: np.random.Generator
) -> Float32[np.ndarray, " S"]:
    """`waveform` as if recorded by another device in another place: its speed, room, coloring,
    noise, saturation and level, each by chance.
    """
    longest = round(SECONDS * RATE)
    if rng.random() < 0.4:
        speed = float(np.exp(rng.uniform(-0.2, 0.2)))
        steps = np.full(max(2, round(len(waveform) / speed)), speed, np.float32)
        waveform = effects.varispeed(waveform, steps)[:longest]
    room, color = rng.random() < 0.4, rng.random() < 0.7
    # Rooms and colors are kept for one length.
    long = np.pad(waveform, (0, longest - len(waveform))) if room or color else waveform
    sound = effects.place(long, long, rng, RATE, room, color)[: len(waveform)]
    sound = sound / max(1e-6, float(np.abs(sound).max()))
    floor = np.float32(10 ** (rng.uniform(-75.0, -28.0) / 20))
    sound = sound + effects.noise(len(sound), rng, RATE) * floor
    if rng.random() < 0.3:
        sound = effects.overdrive(sound, float(10 ** (rng.uniform(0.0, 14.0) / 20)))
    level = 10 ** (rng.uniform(-35.0, 0.0) / 20) / max(1e-6, float(np.abs(sound).max()))
    return (sound * level).astype(np.float32)
