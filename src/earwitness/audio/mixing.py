"""Channels mixed down to mono: by position if the file names them, else their mean.

Two channels, and more without names, are averaged. Named ones are folded down to stereo as in
ITU-R BS.775 (center and surrounds at -3 dB, no LFE), which is then averaged, so that a film sounds
like its stereo version. Where the mix cancels out (one microphone with reversed polarity), it is
replaced.
"""

import numpy as np
from jaxtyping import Float, Float32

CANCELED = 0.1
"""a mix with less than this share of its channels' mean energy has canceled out"""

_HALF = 0.5
_MINUS_3_DB = 0.5**0.5
_FRONT = {"FL": _HALF, "FR": _HALF, "FC": _MINUS_3_DB, "FLC": _HALF, "FRC": _HALF}
_WEIGHTS = _FRONT | {"DL": _HALF, "DR": _HALF, "LFE": 0.0, "LFE2": 0.0}
_SURROUND = _HALF * _MINUS_3_DB
_STRETCH_SECONDS = 1.0
_FADE_SECONDS = 0.01


class Mixer:
    """Mixes consecutive blocks down to mono; where nothing cancels out, this is the plain mix.

    Each second of a block is judged on its own: where the energy of the mix is below `CANCELED`
    times the mean energy of the channels, stereo gives its side signal, (left - right) / 2, and
    more channels give the loudest one. Changes are crossfaded over 10 ms.
    """

    def __init__(self) -> None:
        self._last: Float[np.ndarray, " channels"] | None = None

    def mono(
        self, samples: Float32[np.ndarray, "T channels"], rate: int, layout: tuple[str, ...] | None
    ) -> Float32[np.ndarray, " T"]:
        """The block as one channel."""
        if samples.shape[1] == 1:
            return np.ascontiguousarray(samples[:, 0], dtype=np.float32)
        weights = _weights(samples.shape[1], layout)
        mixed = _mixed(samples, weights)
        step = max(1, round(_STRETCH_SECONDS * rate))
        for start in range(0, len(samples), step):
            part = samples[start : start + step]
            self._mend(mixed[start : start + step], part, weights, rate)
        return mixed

    def _mend(self, mixed: np.ndarray, part: np.ndarray, weights: np.ndarray, rate: int) -> None:
        """Replaces a stretch of the mix that has canceled out."""
        energies = np.einsum("tc,tc->c", part, part, dtype=np.float64)
        if not energies.any():
            return
        canceled = float(np.dot(mixed, mixed)) < CANCELED * energies.mean()
        now = _instead(energies) if canceled else weights
        if canceled:
            mixed[:] = part @ now.astype(np.float32)
        if self._last is not None and len(self._last) == len(now) and (self._last != now).any():
            fade = min(len(part), round(_FADE_SECONDS * rate))
            ramp = np.linspace(0, 1, fade, endpoint=False, dtype=np.float32)
            old = part[:fade] @ self._last.astype(np.float32)
            mixed[:fade] = ramp * mixed[:fade] + (1 - ramp) * old
        self._last = now


def _weights(channels: int, layout: tuple[str, ...] | None) -> Float[np.ndarray, " channels"]:
    if channels > 2 and layout is not None and len(layout) == channels:
        weights = np.array([_WEIGHTS.get(name, _SURROUND) for name in layout])
        if weights.any():
            return weights
    return np.full(channels, 1 / channels)


def _mixed(
    samples: Float32[np.ndarray, "T channels"],
    weights: Float[np.ndarray, " channels"],
) -> Float32[np.ndarray, " T"]:
    if (weights == weights[0]).all():
        return np.ascontiguousarray(samples.mean(axis=1), dtype=np.float32)
    return samples @ weights.astype(np.float32)


def _instead(energies: Float[np.ndarray, " channels"]) -> Float[np.ndarray, " channels"]:
    """The weights that replace a mix that has canceled out."""
    if len(energies) == 2:
        return np.array([0.5, -0.5])
    return (np.arange(len(energies)) == energies.argmax()).astype(np.float64)
