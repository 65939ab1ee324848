"""Sounds with a known right caption, and a captioner that knows it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from builders import tiny_captioner

from earwitness.caption import Caption, Decoding
from earwitness.system.captioner import TorchCaptioner

RATE = 16000
TONES = {200.0: "a dog barks", 700.0: "rain falls", 2000.0: "a siren wails", 5000.0: "birds chirp"}
"""frequency in Hz -> what it stands for"""


def tone(frequency: float, seconds: float, level: float = 0.3) -> np.ndarray:
    """A sine, float32."""
    times = np.arange(round(seconds * RATE)) / RATE
    return (level * np.sin(2 * np.pi * frequency * times)).astype(np.float32)


def silence(seconds: float) -> np.ndarray:
    """Zeros, float32."""
    return np.zeros(round(seconds * RATE), dtype=np.float32)


def knowing_captioner() -> TorchCaptioner:
    """A captioner that names the strongest tone; its score is that tone's share of the energy.

    Everything round the model is real; the model is this rule, so that each test knows its answer.
    `captioner.batches` lists the sizes of the batches it was asked for.
    """
    captioner = tiny_captioner()
    batches: list[int] = []

    def caption_at_once(waveforms: Sequence[np.ndarray], decoding: Decoding) -> list[list[Caption]]:
        batches.append(len(waveforms))
        return [_named(waveform)[: decoding.n_best] for waveform in waveforms]

    captioner.caption_at_once = caption_at_once  # type: ignore[method-assign]
    captioner.batches = batches  # type: ignore[assignment]
    return captioner


def write_sound(path: Path, *parts: np.ndarray) -> Path:
    """A wav file of the parts one after the other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.concatenate(parts), RATE)
    return path


def _named(waveform: np.ndarray) -> list[Caption]:
    spectrum = np.abs(np.fft.rfft(waveform)) ** 2
    hertz = np.arange(len(spectrum)) * RATE / len(waveform)
    shares = {
        text: float(spectrum[np.abs(hertz - frequency) < 20].sum() / spectrum.sum())
        for frequency, text in TONES.items()
    }
    ranked = sorted(shares, key=lambda text: -shares[text])
    return [Caption(text, shares[text], 0.0, len(waveform) / RATE, "knowing") for text in ranked]
