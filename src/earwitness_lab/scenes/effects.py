"""What a place and a recorder do to sounds: rooms, distance, movement, coloring, noise, clipping.

Everything costly (room responses, equalizer curves, noises) is made once per process from fixed
seeds and drawn from afterwards, so that a ten second scene passes one pair of Fourier transforms.
"""

from functools import lru_cache

import numpy as np
from jaxtyping import Complex64, Float32
from scipy.fft import irfft, next_fast_len, rfft
from scipy.signal import lfilter

_ROOMS = 40
_CURVES = 64
_MAX_TAIL_SECONDS = 1.2
_NOISE_SECONDS = 24
_NOISE_SLOPES = (0.0, -1.0, -2.0, 1.0)  # exponents of the power spectrum: white, pink, brown, hiss
_MU = 255.0


@lru_cache(maxsize=4)
def room_spectra(samples: int, rate: int) -> tuple[int, Complex64[np.ndarray, "R F"]]:
    """The transform length for scenes of `samples`, and the spectra of 40 synthetic reverberation
    tails.

    A tail is noise that decays exponentially, faster at high frequencies, after 2 to 30 ms and a
    few early reflections; T60 from 0.15 to 1.8 s (log-uniform), cut at 1.2 s. Every tail has unit
    energy: at a gain of 1 the reverberation is as loud as the direct sound.
    """
    rng = np.random.default_rng(40)
    tail = int(_MAX_TAIL_SECONDS * rate)
    length = int(next_fast_len(samples + tail, real=True) or 0)
    tails = np.stack([_tail(rng, tail, rate) for _ in range(_ROOMS)])
    return length, np.asarray(rfft(tails, length, axis=1), dtype=np.complex64)


def _tail(rng: np.random.Generator, samples: int, rate: int) -> Float32[np.ndarray, " K"]:
    t60 = float(np.exp(rng.uniform(np.log(0.15), np.log(1.8))))
    seconds = np.arange(samples) / rate
    delay = int(rng.uniform(0.002, 0.03) * rate)
    noise = rng.standard_normal((2, samples))
    dull = lfilter([0.25], [1, -0.75], noise[0])
    low = dull * 10 ** (-3 * seconds / t60)
    high = (noise[1] - lfilter([0.25], [1, -0.75], noise[1])) * 10 ** (-3 * seconds / (0.45 * t60))
    response = np.roll(1.6 * low + rng.uniform(0.2, 0.8) * high, delay)
    response[:delay] = 0
    reflections = delay + (rng.uniform(0, 0.03, 6) * rate).astype(int)
    response[reflections] += (
        rng.choice([-1.0, 1.0], 6) * np.abs(response).max() * rng.uniform(0.5, 2, 6)
    )
    return (response / np.linalg.norm(response)).astype(np.float32)


@lru_cache(maxsize=4)
def color_curves(length: int, rate: int) -> Float32[np.ndarray, "C F"]:
    """64 gains per frequency bin: gentle equalizers, rumble filters, and band limits of recorders.

    Half of them only tilt and bend by a few decibels; a third also lose the top octave or more; the
    last few are as narrow as a telephone.
    """
    rng = np.random.default_rng(64)
    frequencies = np.fft.rfftfreq(length, 1 / rate)
    octaves = np.log2(np.maximum(frequencies, 20) / 20)
    knots = np.linspace(0, np.log2(rate / 40), 6)
    curves = []
    for number in range(_CURVES):
        gain_db = np.interp(octaves, knots, rng.normal(0, 2.5, 6))
        low_cut, high_cut = rng.uniform(15, 120), 2.0 * rate
        if number % 3 == 1:
            high_cut = rng.uniform(0.18, 0.48) * rate
        if number % 21 == 20:
            low_cut, high_cut = rng.uniform(200, 400), rng.uniform(3000, 4000)
        gain = 10 ** (gain_db / 20) / np.sqrt(1 + (low_cut / np.maximum(frequencies, 1)) ** 4)
        curves.append(gain / np.sqrt(1 + (frequencies / high_cut) ** 24))
    return np.stack(curves).astype(np.float32)


@lru_cache(maxsize=4)
def noise_floors(rate: int) -> Float32[np.ndarray, "N S"]:
    """Noises of unit RMS to cut from: white, pink, brown, hiss, and hums of 50 and 60 Hz."""
    rng = np.random.default_rng(24)
    samples = _NOISE_SECONDS * rate
    frequencies = np.maximum(np.fft.rfftfreq(samples, 1 / rate), 20.0)
    floors = []
    for slope in _NOISE_SLOPES:
        spectrum = np.fft.rfft(rng.standard_normal(samples)) * frequencies ** (slope / 2)
        floors.append(np.fft.irfft(spectrum, samples))
    seconds = np.arange(samples) / rate
    for mains in (50.0, 60.0):
        harmonics = [
            rng.uniform(0.2, 1) / k * np.sin(2 * np.pi * (k * mains * seconds + rng.random()))
            for k in (1, 2, 3, 5, 7)
        ]
        floors.append(np.sum(harmonics, axis=0) + 0.3 * floors[1] / np.std(floors[1]))
    return np.stack([floor / np.std(floor) for floor in floors]).astype(np.float32)


def low_pass(
    sound: Float32[np.ndarray, " T"], cutoff_hz: float, rate: int
) -> Float32[np.ndarray, " T"]:
    """`sound` through one pole at `cutoff_hz`: how air and obstacles dull what is far."""
    pole = np.float32(np.exp(-2 * np.pi * cutoff_hz / rate))
    filtered = lfilter(np.array([1 - pole], np.float32), np.array([1, -pole], np.float32), sound)
    return np.asarray(filtered, dtype=np.float32)


def ramp(times: list[float], values: list[float], samples: int) -> Float32[np.ndarray, " T"]:
    """The `values` at `times` (from 0 to 1) joined by straight lines over `samples`."""
    return np.interp(np.linspace(0, 1, samples), times, values).astype(np.float32)


def fade(sound: Float32[np.ndarray, " T"], start: int, end: int) -> Float32[np.ndarray, " T"]:
    """`sound`, in place, with `start` samples of fade in and `end` of fade out (raised cosine)."""
    start, end = min(start, len(sound)), min(end, len(sound))
    if start:
        sound[:start] *= 0.5 - 0.5 * np.cos(np.linspace(0, np.pi, start, dtype=np.float32))
    if end:
        sound[-end:] *= 0.5 + 0.5 * np.cos(np.linspace(0, np.pi, end, dtype=np.float32))
    return sound


def approach(
    sound: Float32[np.ndarray, " T"], nearness: Float32[np.ndarray, " T"], rate: int
) -> Float32[np.ndarray, " T"]:
    """`sound` moving with `nearness` (0 far, 1 near): 20 dB softer and dull at the far end."""
    far = low_pass(sound, 900.0, rate)
    return (far + (sound - far) * nearness) * np.exp(np.float32(2.3) * (nearness - 1))


def varispeed(
    sound: Float32[np.ndarray, " T"], speed: Float32[np.ndarray, " S"]
) -> Float32[np.ndarray, " S"]:
    """`sound` played at the momentary `speed` (1 = as it is), looped.

    The pitch of an engine follows its speed, so a louder and faster stretch is heard as revving.
    """
    position = np.cumsum(speed, dtype=np.float64) % (len(sound) - 1)
    below = position.astype(np.int64)
    part = (position - below).astype(np.float32)
    return sound[below] * (1 - part) + sound[below + 1] * part


def place(
    dry: Float32[np.ndarray, " T"],
    wet: Float32[np.ndarray, " T"],
    rng: np.random.Generator,
    rate: int,
    room: bool,
    color: bool,
) -> Float32[np.ndarray, " T"]:
    """`dry` plus the reverberation of `wet` in a random room, through a random recorder's
    coloring.
    """
    if not room and not color:
        return dry
    length, rooms = room_spectra(len(dry), rate)
    spectrum = rfft(dry, length)
    if room:
        spectrum += rfft(wet, length) * rooms[int(rng.integers(len(rooms)))]
    if color:
        curves = color_curves(length, rate)
        spectrum *= curves[int(rng.integers(len(curves)))]
    return np.asarray(irfft(spectrum, length, overwrite_x=True)[: len(dry)], dtype=np.float32)


def noise(samples: int, rng: np.random.Generator, rate: int) -> Float32[np.ndarray, " T"]:
    """An excerpt of a random noise floor, RMS near 1, of any length up to its 24 s."""
    floors = noise_floors(rate)
    offset = int(rng.integers(max(1, floors.shape[1] - samples)))
    cut = floors[int(rng.integers(len(floors))), offset : offset + samples]
    return np.resize(cut, samples) if len(cut) < samples else cut


def mu_law(sound: Float32[np.ndarray, " T"]) -> Float32[np.ndarray, " T"]:
    """`sound` (within -1 to 1) after the 8-bit mu-law coding of telephones (ITU-T G.711)."""
    scale = np.float32(np.log1p(_MU))
    code = np.round(np.log1p(np.float32(_MU) * np.abs(sound)) / scale * 127) / 127
    return np.sign(sound) * np.expm1(code * scale) / np.float32(_MU)


def overdrive(sound: Float32[np.ndarray, " T"], gain: float) -> Float32[np.ndarray, " T"]:
    """`sound` (within -1 to 1) pushed by `gain` into a recorder that saturates at full scale."""
    return np.tanh(np.float32(gain) * sound)
