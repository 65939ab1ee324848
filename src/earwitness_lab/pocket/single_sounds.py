"""Sentences for recordings of one sound, by class, and plain sounds that no collection holds."""

from collections.abc import Callable
from importlib import resources

import numpy as np
from jaxtyping import Float32

from earwitness.config import tomllib
from earwitness_lab.scenes import effects

PLAIN = ("beeps", "alarm", "ringing telephone", "siren", "tone", "noise", "silence")
"""plain sounds that are computed"""

_SAID = {
    "beeps": ("a device beeps repeatedly", "an electronic device is beeping", "a beep repeats"),
    "alarm": ("an alarm beeps repeatedly", "an alarm is ringing", "an alarm goes off"),
    "ringing telephone": ("a telephone is ringing", "a phone rings repeatedly"),
    "siren": ("a siren is wailing", "an alarm siren sounds"),
    "tone": ("a steady tone", "a steady electronic tone hums"),
    "noise": ("static noise", "white noise hisses"),
    "silence": ("it is almost silent", "faint background noise"),
}

_LABELS = {
    "beeps": "beeping",
    "alarm": "alarm_ringing",
    "ringing telephone": "telephone_ringing",
    "noise": "static_noise",
    "silence": "quiet_room",
}


def plain_label(kind: str) -> str:
    """The class of a kind of synthetic sound."""
    return _LABELS.get(kind, kind)


def sentences() -> dict[str, tuple[str, ...]]:
    """Class -> sentences that describe a recording of it alone (single_sounds.toml)."""
    text = (
        resources.files("earwitness_lab.pocket").joinpath("single_sounds.toml").read_text("utf-8")
    )
    return {label: tuple(said) for label, said in tomllib.loads(text).items()}


def plain_sound(
    index: int, seed: int, rate: int, most_seconds: float = 10.0
) -> tuple[Float32[np.ndarray, " T"], str, str]:
    """A synthetic sound, its kind (one of `PLAIN`) and a sentence; the same for the same index,
    seed.
    """
    rng = np.random.default_rng((seed, index))
    kind = PLAIN[index % len(PLAIN)]
    time = np.arange(int(rng.uniform(0.8, most_seconds) * rate)) / rate
    makers: dict[str, Callable[..., np.ndarray]] = {
        "beeps": _beeps,
        "alarm": _alarm,
        "ringing telephone": _telephone,
        "siren": _siren,
        "tone": _tone,
    }
    if kind in makers:
        sound = makers[kind](time, rng) * 10 ** (rng.uniform(-25, -3) / 20)
        floor = effects.noise(len(time), rng, rate) * 10 ** (rng.uniform(-80, -45) / 20)
        sound = sound + floor
    else:
        loudest = (-58, -12) if kind == "noise" else (-100, -60)
        sound = effects.noise(len(time), rng, rate) * 10 ** (rng.uniform(*loudest) / 20)
        if kind == "silence" and rng.random() < 0.2:
            sound = np.zeros_like(sound)
    said = _SAID[kind]
    peak = max(1.0, float(np.abs(sound).max()))
    return (sound / peak).astype(np.float32), kind, said[int(rng.integers(len(said)))]


def _tone(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    base = np.exp(rng.uniform(np.log(100), np.log(4000)))
    wave = np.sin(2 * np.pi * base * time)
    if rng.random() < 0.4:
        wave = wave + 0.5 * np.sin(2 * np.pi * 2 * base * time)
    elif rng.random() < 0.3:
        wave = np.tanh(8 * wave)
    return wave / np.abs(wave).max()


def _voice(time: np.ndarray, hertz: float, rng: np.random.Generator) -> np.ndarray:
    """A sine, or a square wave as buzzers make it."""
    wave = np.sin(2 * np.pi * hertz * time)
    return wave if rng.random() < 0.5 else 0.6 * np.tanh(8 * wave)


def _pulses(time: np.ndarray, period: float, share: float) -> np.ndarray:
    """1 during `share` of each period, with edges of a few milliseconds."""
    phase = (time % period) / period
    edge = 0.004 / period
    return np.clip(np.minimum(phase, share - phase) / edge, 0, 1)


def _beeps(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    gate = _pulses(time, float(rng.uniform(0.15, 1.5)), float(rng.uniform(0.15, 0.6)))
    return _voice(time, float(np.exp(rng.uniform(np.log(400), np.log(4000)))), rng) * gate


def _alarm(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Groups of short beeps as alarm clocks make them, or two tones by turns."""
    hertz = float(rng.uniform(700, 3500))
    if rng.random() < 0.5:
        group = _pulses(time, float(rng.uniform(0.8, 1.4)), float(rng.uniform(0.4, 0.7)))
        return _voice(time, hertz, rng) * _pulses(time, float(rng.uniform(0.08, 0.16)), 0.5) * group
    turn = _pulses(time, float(rng.uniform(0.3, 1.2)), 0.5)
    other = _voice(time, hertz * float(rng.uniform(0.6, 0.9)), rng)
    return _voice(time, hertz, rng) * turn + other * (1 - turn)


def _telephone(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Two tones beating at 15 to 30 Hz, in rings with pauses."""
    hertz = float(rng.uniform(400, 1800))
    beat = _pulses(time, 1 / float(rng.uniform(15, 30)), 0.5)
    wave = _voice(time, hertz, rng) * beat + _voice(time, hertz * 1.25, rng) * (1 - beat)
    return wave * _pulses(time, float(rng.uniform(1.5, 4.0)), float(rng.uniform(0.35, 0.6)))


def _siren(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A tone that sweeps up and down."""
    low, high = float(rng.uniform(300, 700)), float(rng.uniform(900, 1800))
    sweep = 0.5 - 0.5 * np.cos(2 * np.pi * time / float(rng.uniform(0.3, 5.0)))
    hertz = low + (high - low) * sweep
    phase = 2 * np.pi * np.cumsum(hertz) / (1 / (time[1] - time[0]))
    return 0.8 * np.tanh(2 * np.sin(phase))
