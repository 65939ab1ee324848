"""Log-mel spectrograms in torch, one clip at a time, so that no clip depends on its neighbors."""

import torch
from jaxtyping import Float
from pydantic import PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from earwitness.config import Strict


class LogMelConfig(Strict):
    """Settings of a log-mel front end. The defaults are those of CED (arXiv 2308.11957)."""

    sample_rate: PositiveInt = 16000
    """Hz"""
    n_fft: PositiveInt = 512
    """in samples; also the window length"""
    hop_samples: PositiveInt = 160
    n_mels: PositiveInt = 64
    f_min: float = 0.0
    """Hz"""
    f_max: PositiveFloat = 8000.0
    """Hz"""
    top_db: PositiveFloat = 120.0
    """floor in dB below the loudest bin of the same clip"""

    @model_validator(mode="after")
    def _rising(self) -> "LogMelConfig":
        if self.f_min >= self.f_max:
            raise ValueError(f"f_min {self.f_min:g} is not below f_max {self.f_max:g}")
        return self


class LogMel(nn.Module):
    """Waveforms to log-mel spectrograms in dB, as CED was trained on.

    Power spectrogram (periodic Hann window, centered frames, reflect padding), HTK mel triangles
    without area normalization, 10 log10 with a floor of 1e-10, then a floor `top_db` below the
    maximum of the clip itself: taken over a batch, it would make a clip depend on its neighbors.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, config: LogMelConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("window", torch.hann_window(config.n_fft), persistent=False)
        self.register_buffer("filters", mel_filters(config), persistent=False)

    def forward(self, waveform: Float[Tensor, " T"]) -> Float[Tensor, "M F"]:
        """Log-mel spectrogram of one clip; a clip shorter than a window is padded with zeros."""
        config = self.config
        short = config.n_fft - waveform.shape[-1]
        if short > 0:
            waveform = nn.functional.pad(waveform, (0, short))
        spectrum = torch.stft(
            waveform.float(),
            config.n_fft,
            config.hop_samples,
            window=self.window,
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        power = spectrum.real.square() + spectrum.imag.square()
        level_db = 10 * (self.filters.T @ power).clamp(min=1e-10).log10()
        return level_db.clamp(min=level_db.max() - config.top_db)


def mel_filters(config: LogMelConfig) -> Float[Tensor, "bins M"]:
    """Triangular HTK mel filters over the `n_fft // 2 + 1` frequency bins, with a peak of 1."""
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(
        num_frequency_bins=config.n_fft // 2 + 1,
        num_mel_filters=config.n_mels,
        min_frequency=config.f_min,
        max_frequency=config.f_max,
        sampling_rate=config.sample_rate,
        norm=None,
        mel_scale="htk",
    )
    return torch.from_numpy(filters).float()
