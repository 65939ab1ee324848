"""Builders of sound files for the tests, and what a tone must still be when it comes back."""

import io
import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

NEEDS_FFMPEG = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
FFMPEG_KINDS = {
    "m4a": [],
    "mp4": ["-movflags", "+faststart"],
    "mov": [],
    "aac": [],
    "webm": [],
    "mkv": [],
    "wma": [],
    "flv": [],
    "ts": [],
    "ac3": [],
    "avi": [],
    "tta": [],
    "wv": [],
}


def tone(rate: int, seconds: float = 1.0, level: float = 0.5, hertz: float = 440.0) -> np.ndarray:
    times = np.arange(round(seconds * rate)) / rate
    return (level * np.sin(2 * np.pi * hertz * times)).astype(np.float32)


def assert_tone(sound: np.ndarray, rate: int, tolerance: float = 0.01) -> None:
    """440 Hz at level 0.5 by its spectrum and its root mean square, away from the ends."""
    middle = sound[round(0.1 * rate) : round(0.8 * rate)]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 8 * len(middle)))
    assert spectrum.argmax() * rate / (8 * len(middle)) == pytest.approx(440, rel=0.005)
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.5 / math.sqrt(2), rel=tolerance)


def encode(path: Path, *options: str, seconds: float = 1.0, rate: int = 44100) -> Path:
    """The tone in the container that the name of `path` asks for."""
    source = path.with_name("source.wav")
    soundfile.write(source, np.stack([tone(rate, seconds)] * 2, axis=1), rate)
    argv = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-i", source, *options, path]
    subprocess.run(argv, check=True)
    return path


def wav_bytes(samples: np.ndarray, rate: int, **options: str) -> bytes:
    target = io.BytesIO()
    soundfile.write(target, samples, rate, **{"format": "WAV", **options})
    return target.getvalue()


def half(contents: bytes) -> bytes:
    return contents[: len(contents) // 2]
