"""The log-mel front end of `encoder.onnx`; its operators run wherever a convolution does.

The Fourier transform of each window is Cooley and Tukey's (1965) in two steps, which needs a
quarter of the products of a plain matrix: with n = r a + b and k = p + (n_fft / r) q, step one
transforms over a (a convolution, which also cuts out the windows), step two over b (one matrix per
p, which includes the twiddle factors).
"""

import math

import numpy as np
from jaxtyping import Float

from earwitness.encoders.log_mel import LogMelConfig, mel_filters
from earwitness.export.graph import Graph, Value

_SECOND = 16
"""the maximum number of points in the second step"""


def log_mel(g: Graph, wave: Value, config: LogMelConfig) -> Value:
    """Log-mel spectrograms [B, F, M] in dB from [B, T], as defined by `encoders.log_mel.LogMel`.

    T is at least one window.
    """
    n_fft = config.n_fft
    r = math.gcd(n_fft, config.hop_samples, _SECOND)
    frames = g.op("Add", g.op("Div", g.size(wave, 1), g.ints(config.hop_samples)), g.ints(1))
    x = g.op("Pad", wave, g.ints(0, n_fft // 2, 0, n_fft // 2), mode="reflect")
    x = g.cut(x, 1, 0, _needed(g, frames, config))
    x = g.op("Transpose", g.reshape(x, 0, -1, r), perm=[0, 2, 1])
    first = _first_step(n_fft, r)
    points = first.shape[1]
    stride = config.hop_samples // r
    kernels = g.constant(first.reshape(-1, 1, n_fft // r))
    x = g.op("Conv", x, kernels, group=r, kernel_shape=[n_fft // r], strides=[stride])
    x = g.op("Transpose", g.reshape(x, 0, r, points, 2, frames), perm=[0, 2, 1, 3, 4])
    x = g.op("MatMul", g.constant(_second_step(n_fft, r)), g.reshape(x, 0, points, 2 * r, frames))
    power = g.reshape(g.op("Mul", x, x), 0, points * 2 * r, frames)
    mel = g.op("MatMul", g.constant(_filters(config, r)), power)
    level = g.op("Log", g.op("Max", mel, g.number(1e-10)))
    level = g.op("Mul", level, g.number(10 / math.log(10)))
    highest = g.op("ReduceMax", level, g.ints(1, 2), keepdims=1)
    level = g.op("Max", level, g.op("Sub", highest, g.number(config.top_db)))
    return g.op("Transpose", level, perm=[0, 2, 1])


def _needed(g: Graph, frames: Value, config: LogMelConfig) -> Value:
    """The number of samples that the windows of `frames` frames cover."""
    hops = g.op("Mul", g.op("Sub", frames, g.ints(1)), g.ints(config.hop_samples))
    return g.op("Add", hops, g.ints(config.n_fft))


def _first_step(n_fft: int, r: int) -> Float[np.ndarray, "r points 2 a"]:
    """Cosines and negative sines over n_fft / r points, times the periodic Hann window; for a real
    signal, the first half of the points is enough.
    """
    size = n_fft // r
    window = 0.5 - 0.5 * np.cos(np.arange(n_fft) * 2 * np.pi / n_fft)
    angles = 2 * np.pi / size * (np.arange(size // 2 + 1)[:, None] * np.arange(size) % size)
    waves = np.stack([np.cos(angles), -np.sin(angles)], axis=1)
    return (waves * window.reshape(size, r).T[:, None, None, :]).astype(np.float32)


def _second_step(n_fft: int, r: int) -> Float[np.ndarray, "points rows rows"]:
    """For each p, the matrix from (b, part) to (q, part); parts are real and imaginary."""
    size = n_fft // r
    p, q, b = np.ix_(np.arange(size // 2 + 1), np.arange(r), np.arange(r))
    angles = 2 * np.pi / n_fft * (b * (p + size * q) % n_fft)
    cosines, sines = np.cos(angles), np.sin(angles)
    parts = [np.stack([cosines, sines], axis=-1), np.stack([-sines, cosines], axis=-1)]
    return np.stack(parts, axis=2).reshape(size // 2 + 1, 2 * r, 2 * r).astype(np.float32)


def _filters(config: LogMelConfig, r: int) -> Float[np.ndarray, "M bins"]:
    """The mel filters for squared parts in the order (p, q, part); a bin that occurs twice, at k
    and at n_fft - k, counts once.
    """
    size = config.n_fft // r
    bins = (np.arange(size // 2 + 1)[:, None] + size * np.arange(r)).ravel()
    bins = np.minimum(bins, config.n_fft - bins)
    _, places = np.unique(bins, return_index=True)
    weights = np.zeros((len(bins), config.n_mels), np.float32)
    weights[places] = mel_filters(config).numpy()
    return np.ascontiguousarray(np.repeat(weights, 2, axis=0).T)
