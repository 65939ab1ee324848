"""A sound as a picture for the web page: waveform as an SVG path, spectrogram as a PNG."""

import io

import numpy as np
from jaxtyping import Float

COLUMNS, ROWS = 1000, 128
_FRAME = 1024
_FLOOR_DB = 70.0
_LOWEST_HZ = 60.0

# Dark to bright in even steps of lightness: readable without color vision.
_COLORS = np.array(
    [
        (11, 10, 34),
        (43, 20, 89),
        (96, 29, 116),
        (156, 46, 110),
        (214, 75, 84),
        (247, 131, 60),
        (253, 221, 146),
    ],
    dtype=np.float64,
)


def waveform_path(samples: Float[np.ndarray, " T"], columns: int = COLUMNS) -> str:
    """The `d` of an SVG path around the waveform, in a box of `columns` by 100, zero at 50."""
    edges = np.linspace(0, len(samples), columns + 1).astype(int)
    starts = np.minimum(edges[:-1], len(samples) - 1)
    high, low = np.maximum.reduceat(samples, starts), np.minimum.reduceat(samples, starts)
    scale = 48 / max(float(np.abs(samples).max()), 1e-4)
    top = [f"{x} {50 - scale * y:.1f}" for x, y in enumerate(high)]
    bottom = [f"{x} {50 - scale * y:.1f}" for x, y in reversed(list(enumerate(low)))]
    return f"M{' L'.join(top + bottom)}Z"


def spectrogram_png(samples: Float[np.ndarray, " T"], rate: int) -> bytes:
    """A PNG: time to the right, pitch upwards on a log axis, 70 dB of range."""
    from PIL import Image

    level = spectrogram_db(samples, rate)
    bright = np.clip(1 + (level - level.max()) / _FLOOR_DB, 0, 1)
    place = bright * (len(_COLORS) - 1)
    below = np.minimum(place.astype(int), len(_COLORS) - 2)
    part = (place - below)[..., None]
    color = _COLORS[below] * (1 - part) + _COLORS[below + 1] * part
    target = io.BytesIO()
    Image.fromarray(color.round().astype(np.uint8)).save(target, format="PNG")
    return target.getvalue()


def spectrogram_db(
    samples: Float[np.ndarray, " T"], rate: int
) -> Float[np.ndarray, "rows columns"]:
    """Power in dB; the first row is the highest pitch. A column is the loudest of four frames."""
    padded = np.pad(samples, _FRAME // 2)
    columns = min(COLUMNS, max(1, 8 * len(samples) // _FRAME))
    centers = (np.arange(4 * columns) + 0.5) * len(samples) / (4 * columns)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FRAME)
    power = np.empty((4 * columns, _FRAME // 2 + 1), dtype=np.float32)
    window = np.hanning(_FRAME).astype(np.float32)
    chosen = np.minimum(centers.astype(int), len(frames) - 1)
    for start in range(0, len(chosen), 256):
        part = frames[chosen[start : start + 256]] * window
        power[start : start + 256] = np.abs(np.fft.rfft(part)) ** 2
    loudest = power.reshape(columns, 4, -1).max(axis=1)
    edges = np.geomspace(rate / 2, _LOWEST_HZ, ROWS + 1) * _FRAME / rate
    rows = [
        loudest[:, int(low) : max(int(low) + 1, int(high))].mean(axis=1)
        for high, low in zip(edges, edges[1:], strict=False)
    ]
    return 10 * np.log10(np.stack(rows) + 1e-10)


def mp3(samples: Float[np.ndarray, " T"], rate: int) -> bytes:
    """The sound as every browser plays it."""
    import soundfile

    target = io.BytesIO()
    soundfile.write(target, np.clip(samples, -1, 1), rate, format="MP3")
    return target.getvalue()
