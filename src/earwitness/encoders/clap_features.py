"""CLAP's log-mel front end in torch, and the fixed windows that cover a file.

Identical to transformers' `ClapFeatureExtractor` for clips of up to one window. That extractor
crops a longer clip at random, so that the same file gives another embedding each time; here a
longer clip becomes several windows at fixed positions.
"""

from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn.functional import pad

from earwitness.config import Strict, validate


class ClapFeatureSettings(Strict):
    """Settings of the front end; the defaults are those of `laion/clap-htsat-unfused`."""

    sample_rate: PositiveInt = 48_000
    """Hz"""
    n_fft: PositiveInt = 1024
    """samples, also the length of the Hann window"""
    hop_samples: PositiveInt = 480
    n_mels: PositiveInt = 64
    f_min: float = Field(default=50.0, ge=0.0)
    """Hz"""
    f_max: PositiveFloat = 14_000.0
    """Hz"""
    window_seconds: PositiveFloat = 10.0
    """length of the network's input"""
    padding: Literal["repeatpad", "repeat", "pad"] = "repeatpad"
    """a short clip is repeated in full and then padded, repeated and cut, or zero-padded"""
    truncation: Literal["rand_trunc", "fusion"] = "rand_trunc"
    """decides the mel filters that the network was trained on: Slaney's, or HTK's for "fusion" """

    @property
    def window_samples(self) -> int:
        """Samples per window."""
        return int(self.window_seconds * self.sample_rate)

    @property
    def frames(self) -> int:
        """Frames per window, F."""
        return self.window_samples // self.hop_samples + 1

    @classmethod
    def of(cls, extractor: Any, source: str) -> "ClapFeatureSettings":
        """The settings of a `ClapFeatureExtractor`. Raises ConfigError for an unusable value."""
        names = {
            "sample_rate": "sampling_rate",
            "n_fft": "fft_window_size",
            "hop_samples": "hop_length",
            "n_mels": "feature_size",
            "f_min": "frequency_min",
            "f_max": "frequency_max",
            "window_seconds": "max_length_s",
            "padding": "padding",
            "truncation": "truncation",
        }
        return validate(cls, {ours: getattr(extractor, hf) for ours, hf in names.items()}, source)


class ClapFeatures:
    """Windows of sound to log-mel spectrograms in dB.

    Centered frames with reflect padding, power spectrogram, mel triangles, 10 log10 with a floor of
    1e-10. Computed in float64 like the reference: in float32 the quiet bins next to a pure tone
    are off by whole decibels.
    """

    def __init__(self, settings: ClapFeatureSettings) -> None:
        from transformers.audio_utils import mel_filter_bank

        self.settings = settings
        fused = settings.truncation == "fusion"
        filters = mel_filter_bank(
            num_frequency_bins=settings.n_fft // 2 + 1,
            num_mel_filters=settings.n_mels,
            min_frequency=settings.f_min,
            max_frequency=settings.f_max,
            sampling_rate=settings.sample_rate,
            norm=None if fused else "slaney",
            mel_scale="htk" if fused else "slaney",
        )
        self._filters = torch.from_numpy(filters).double()
        self._hann = torch.hann_window(settings.n_fft, dtype=torch.float64)

    def __call__(self, windows: Float[Tensor, "W T"]) -> Float[Tensor, "W F M"]:
        """Log-mel spectrograms of full windows, float32, on the device of `windows`."""
        settings, device = self.settings, windows.device
        # Apple GPUs have no float64.
        dtype = torch.float32 if device.type == "mps" else torch.float64
        spectrum = torch.stft(
            windows.to(dtype),
            settings.n_fft,
            settings.hop_samples,
            window=self._hann.to(device, dtype),
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        power = spectrum.real**2 + spectrum.imag**2
        mel = power.transpose(1, 2) @ self._filters.to(device, dtype)
        return (10.0 * mel.clamp(min=1e-10).log10()).float()

    def window(self, waveform: Float[Tensor, " T"], start: int) -> Float[Tensor, " W"]:
        """The window of `waveform` from sample `start` on, padded if the clip is shorter."""
        length = self.settings.window_samples
        clip = waveform[start : start + length]
        if len(clip) == length:
            return clip
        if self.settings.padding == "repeat":
            return clip.repeat(length // len(clip) + 1)[:length]
        if self.settings.padding == "repeatpad":
            clip = clip.repeat(length // len(clip))
        return pad(clip, (0, length - len(clip)))


def window_starts(samples: int, window: int, stride: int) -> list[int]:
    """First samples of the windows that cover a clip: every `stride`, the last one at its end.

    A clip no longer than `window` has one window; a longer clip is fully covered as long as
    `stride` is at most `window`, and no window extends past the end.
    """
    last = max(samples - window, 0)
    return [*range(0, last, stride), last]
