"""Synthetic sounds with matching captions: a complete training run without any data."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

RATE = 16000

SENTENCES = {
    "beep": "a high tone beeps repeatedly",
    "hum": "a low tone hums steadily",
    "hiss": "steady noise hisses",
    "clicks": "something clicks again and again",
    "sweep": "a siren rises and falls",
}


@dataclass(frozen=True)
class SyntheticClip:
    """A waveform at 16 kHz and a caption that describes it."""

    waveform: Float32[np.ndarray, " T"]
    caption: str


def synthetic_clip(index: int, seed: int = 0, seconds: float = 2.0) -> SyntheticClip:
    """One of five kinds of sound with random pitch, level and rhythm, determined by seed and
    index.
    """
    rng = np.random.default_rng((seed, index))
    kind = list(SENTENCES)[index % len(SENTENCES)]
    time = np.arange(round(seconds * RATE)) / RATE
    pulse = (time * rng.uniform(2, 5)) % 1
    if kind == "beep":
        sound = np.sin(2 * np.pi * rng.uniform(1500, 3000) * time) * (pulse < 0.5)
    elif kind == "hum":
        sound = np.sin(2 * np.pi * rng.uniform(80, 160) * time)
    elif kind == "hiss":
        sound = rng.standard_normal(len(time))
    elif kind == "clicks":
        sound = rng.standard_normal(len(time)) * (pulse < 0.02)
    else:
        sound = np.sin(2 * np.pi * np.cumsum(900 + 400 * np.sin(2 * np.pi * time)) / RATE)
    sound = sound / np.abs(sound).max() * 10 ** (rng.uniform(-20, -3) / 20)
    noisy = sound + rng.standard_normal(len(time)) * 1e-3
    return SyntheticClip(noisy.clip(-1, 1).astype(np.float32), SENTENCES[kind])
