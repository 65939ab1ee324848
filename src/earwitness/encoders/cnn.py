"""The pocket audio encoder: a residual convolutional network over log-mel spectrograms, 6.25 frames
per second.

This encoder is in neither paper: LAMB uses CED. Ordinary 3 x 3 convolutions train several times
faster on a CPU than a vision transformer of the same cost and need far fewer sounds; the output has
CED's shape and frame rate, so everything downstream is the same.
"""

from collections import defaultdict

import torch
from einops import rearrange
from jaxtyping import Float, Int
from pydantic import Field, NonNegativeInt, PositiveInt, field_validator
from torch import Tensor, nn

from earwitness.config import Strict
from earwitness.encoders.base import Frames
from earwitness.encoders.log_mel import LogMel, LogMelConfig
from earwitness.models.hub import WeightsOrigin

_STRIDE = 16
"""log-mel frames, and mel bins, per output position"""


class CNNConfig(Strict):
    """Sizes of the network: a stem, then three stages; each halves time and frequency."""

    stem: PositiveInt = 32
    channels: tuple[PositiveInt, PositiveInt, PositiveInt] = (64, 128, 256)
    blocks: tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt] = (1, 2, 2)
    dim: PositiveInt = 384
    dilations: tuple[PositiveInt, ...] = (1, 2)
    """one residual temporal block per dilation"""
    chunk_frames: PositiveInt = Field(default=1008, multiple_of=_STRIDE)
    """frames encoded at once (10.08 s); longer clips are split"""
    log_mel: LogMelConfig = LogMelConfig(top_db=80.0)

    @field_validator("log_mel")
    @classmethod
    def _whole_bands(cls, log_mel: LogMelConfig) -> LogMelConfig:
        if log_mel.n_mels % _STRIDE:
            raise ValueError(f"n_mels {log_mel.n_mels} is not a multiple of {_STRIDE}")
        return log_mel


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Float[Tensor, "B C N M"]) -> Float[Tensor, "B C N M"]:
        return torch.relu(x + self.body(x))


class _Temporal(nn.Module):
    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation, bias=False)
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x: Float[Tensor, "B D N"]) -> Float[Tensor, "B D N"]:
        return x + torch.relu(self.norm(self.conv(x)))


def _down(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride=2, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


class CNN(nn.Module):
    """Waveforms to frames `h_a` of width `dim`, 160 ms each."""

    origin: WeightsOrigin | None = None
    """where the weights were loaded from; None if they are new or have changed"""

    def __init__(self, config: CNNConfig) -> None:
        super().__init__()
        self.config = config
        self.dim = config.dim
        self.sample_rate = config.log_mel.sample_rate
        self.frame_rate = self.sample_rate / config.log_mel.hop_samples / _STRIDE
        self.log_mel = LogMel(config.log_mel)
        self.init_bn = nn.BatchNorm1d(config.log_mel.n_mels)
        layers: list[nn.Module] = [_down(1, config.stem, 5)]
        widths = (config.stem, *config.channels)
        for inputs, outputs, blocks in zip(widths, config.channels, config.blocks, strict=False):
            layers += [_down(inputs, outputs, 3), *(_Residual(outputs) for _ in range(blocks))]
        self.body = nn.Sequential(*layers)
        bands = config.log_mel.n_mels // _STRIDE
        self.collapse = nn.Conv1d(widths[-1] * bands, config.dim, 1, bias=False)
        self.collapse_norm = nn.BatchNorm1d(config.dim)
        self.temporal = nn.Sequential(*(_Temporal(config.dim, d) for d in config.dilations))
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, waveforms: Float[Tensor, "B T"], lengths: Int[Tensor, " B"]) -> Frames:
        """Frames of zero-padded clips; `lengths` in samples. A clip's frames do not depend on its
        batch.
        """
        chunks: list[Tensor] = []
        owners: list[int] = []
        for row, (waveform, length) in enumerate(zip(waveforms, lengths.tolist(), strict=True)):
            clip = self.log_mel(waveform[:length])
            for part in clip.split(self.config.chunk_frames, dim=1):
                chunks.append(pad_to_stride(part))
                owners.append(row)
        encoded = self._encode_by_width(chunks)
        rows = [
            torch.cat([h for h, owner in zip(encoded, owners, strict=True) if owner == row])
            for row in range(len(waveforms))
        ]
        counts = torch.tensor([len(row) for row in rows], device=waveforms.device)
        h = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return Frames(h, torch.arange(h.shape[1], device=h.device)[None, :] < counts[:, None])

    def encode(self, log_mel: Float[Tensor, "B M F"]) -> Float[Tensor, "B N D"]:
        """Frames of log-mel spectrograms of equal length; F is a multiple of 16, N = F / 16."""
        return self.encode_with_maps(log_mel)[1]

    def encode_with_maps(
        self, log_mel: Float[Tensor, "B M F"]
    ) -> tuple[Float[Tensor, "B C N bands"], Float[Tensor, "B N D"]]:
        """The last two-dimensional maps (bands of 16 mels), and the frames made from them."""
        x = rearrange(self.init_bn(log_mel), "b m f -> b 1 f m")
        maps = self.body(x.contiguous(memory_format=torch.channels_last))
        x = self.collapse_norm(self.collapse(rearrange(maps, "b c n m -> b (c m) n")))
        return maps, self.norm(rearrange(self.temporal(torch.relu(x)), "b d n -> b n d"))

    def _encode_by_width(self, chunks: list[Float[Tensor, "M _"]]) -> list[Float[Tensor, "N D"]]:
        """Encodes each chunk only with chunks of the same length, so that padding never leaks
        through a convolution.
        """
        groups: dict[int, list[int]] = defaultdict(list)
        for index, chunk in enumerate(chunks):
            groups[chunk.shape[1]].append(index)
        encoded: list[Tensor] = [chunks[0]] * len(chunks)
        for indices in groups.values():
            for index, h in zip(
                indices, self.encode(torch.stack([chunks[i] for i in indices])), strict=True
            ):
                encoded[index] = h
        return encoded


def pad_to_stride(log_mel: Float[Tensor, "M F"]) -> Float[Tensor, "M _"]:
    """`log_mel` padded to a multiple of 16 frames with its own quietest value."""
    missing = -log_mel.shape[1] % _STRIDE
    return nn.functional.pad(log_mel, (0, missing), value=float(log_mel.min()))
