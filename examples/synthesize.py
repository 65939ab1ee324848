"""Makes the example clips of this folder from noise and sines: no recording, no rights of others.

python examples/synthesize.py
"""

from pathlib import Path

import numpy as np
import soundfile

RATE = 16000
FOLDER = Path(__file__).parent


def band_noise(
    rng: np.random.Generator, seconds: float, low: float, high: float, tilt: float = 0.0
) -> np.ndarray:
    """Noise between `low` and `high` Hz, falling by `tilt` powers of frequency; RMS 1."""
    n = round(seconds * RATE)
    frequency = np.fft.rfftfreq(n, 1 / RATE)
    shape = (frequency >= low) & (frequency <= high)
    spectrum = rng.standard_normal(len(frequency)) + 1j * rng.standard_normal(len(frequency))
    noise = np.fft.irfft(spectrum * shape * np.maximum(frequency, 20.0) ** -tilt, n)
    return noise / noise.std()


def tone(frequency: np.ndarray) -> np.ndarray:
    """A sine of the instantaneous `frequency` in Hz."""
    return np.sin(2 * np.pi * np.cumsum(frequency) / RATE)


def place(track: np.ndarray, sound: np.ndarray, second: float) -> None:
    """Adds `sound` to `track` from `second` on."""
    start = round(second * RATE)
    part = sound[: len(track) - start]
    track[start : start + len(part)] += part


def storm(rng: np.random.Generator) -> np.ndarray:
    """Steady rain with two rolls of thunder."""
    track = 0.25 * band_noise(rng, 10, 400, 7900, 0.3)
    for second in (1.5, 6.0):
        roll = band_noise(rng, 4, 25, 250, 1.0)
        time = np.arange(len(roll)) / RATE
        place(track, 1.2 * roll * np.minimum(time / 0.15, 1) * np.exp(-time / 1.1), second)
    return track


def siren(rng: np.random.Generator) -> np.ndarray:
    """A wailing siren over faint traffic."""
    time = np.arange(10 * RATE) / RATE
    frequency = 900 + 400 * np.sin(2 * np.pi * 0.35 * time)
    wail = sum(tone(k * frequency) / k for k in (1, 2, 3))
    return 0.4 * wail * (0.4 + 0.6 * time / 10) + 0.08 * band_noise(rng, 10, 50, 1500, 0.8)


def clock(rng: np.random.Generator) -> np.ndarray:
    """A clock that ticks twice a second in a quiet room."""
    track = 0.004 * band_noise(rng, 10, 50, 6000, 0.5)
    for number in range(20):
        pitch = 3100 if number % 2 else 2500
        time = np.arange(round(0.06 * RATE)) / RATE
        click = np.sin(2 * np.pi * pitch * time) + 0.5 * band_noise(rng, 0.06, 1500, 7500)
        place(track, 0.5 * click * np.exp(-time / 0.006), 0.2 + 0.5 * number)
    return track


def alarm(rng: np.random.Generator) -> np.ndarray:
    """An alarm that beeps four times and pauses, again and again."""
    track = 0.003 * band_noise(rng, 8, 50, 6000, 0.5)
    time = np.arange(round(0.1 * RATE)) / RATE
    beep = np.sign(np.sin(2 * np.pi * 2000 * time)) * np.minimum(
        1, 40 * np.minimum(time, 0.1 - time)
    )
    for start in np.arange(0.3, 7.5, 1.2):
        for number in range(4):
            place(track, 0.3 * beep, float(start) + 0.17 * number)
    return track


def main() -> None:
    """Writes every example as 16-bit FLAC at 16 kHz."""
    for number, make in enumerate((storm, siren, clock, alarm)):
        track = make(np.random.default_rng(number))
        path = FOLDER / f"{make.__name__}.flac"
        soundfile.write(path, 0.6 * track / np.abs(track).max(), RATE, subtype="PCM_16")
        print(path.name)


if __name__ == "__main__":
    main()
