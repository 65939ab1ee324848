"""CED (Consistent Ensemble Distillation, arXiv 2308.11957), LAMB's audio encoder, reimplemented.

A vision transformer over 16 x 16 patches of a 64-band log-mel spectrogram. Both public weight
layouts load: the original checkpoints' keys and those of the `mispeech/ced-*` folders on the hub.
LAMB uses the tokens after the last norm, averaged over the four frequency patches [the paper does
not say so, but its Conv1D and GRU need time order], 6.25 tokens per second.
"""

from typing import Any, Literal, NamedTuple

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from pydantic import PositiveInt
from torch import Tensor, nn

from earwitness.config import Strict, validate
from earwitness.encoders.base import Frames
from earwitness.encoders.log_mel import LogMel, LogMelConfig
from earwitness.errors import CheckpointError
from earwitness.models.hub import WeightsOrigin


class CEDConfig(Strict):
    """Sizes of a CED network; the defaults are CED-Base."""

    embed_dim: PositiveInt = 768
    depth: PositiveInt = 12
    num_heads: PositiveInt = 12
    mlp_ratio: float = 4.0
    patch: PositiveInt = 16
    """frames and mel bins per patch, without overlap"""
    target_length: PositiveInt = 1012
    """frames encoded at once; longer clips are split"""
    outputdim: int = 527
    """classes of the tagging head; 0 for no head"""
    freq_pool: Literal["mean", "none"] = "mean"
    log_mel: LogMelConfig = LogMelConfig()


class _Attention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self, x: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"]
    ) -> Float[Tensor, "B N D"]:
        q, k, v = rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.heads)
        out = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        return self.proj(rearrange(out, "b h n d -> b n (h d)"))


class _MLP(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class _Block(nn.Module):
    def __init__(self, config: CEDConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.embed_dim, eps=1e-6)
        self.attn = _Attention(config.embed_dim, config.num_heads)
        self.norm2 = nn.LayerNorm(config.embed_dim, eps=1e-6)
        self.mlp = _MLP(config.embed_dim, int(config.embed_dim * config.mlp_ratio))

    def forward(
        self, x: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"]
    ) -> Float[Tensor, "B N D"]:
        x = x + self.attn(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


class _PatchEmbed(nn.Module):
    def __init__(self, dim: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, dim, patch, patch)

    def forward(self, log_mel: Float[Tensor, "B M F"]) -> Float[Tensor, "B D bands columns"]:
        return self.proj(log_mel[:, None])


class _Chunk(NamedTuple):
    log_mel: Float[Tensor, "M F"]
    columns: int
    """patch columns to encode; past the frames of `log_mel` they are zeros (after `init_bn`)"""


class CED(nn.Module):
    """Waveforms to frames `h_a` of width `dim`; also patch tokens and AudioSet scores."""

    origin: WeightsOrigin | None = None
    """where the weights were loaded from; None if they are new or have changed"""

    def __init__(self, config: CEDConfig) -> None:
        super().__init__()
        self.config = config
        self.dim = config.embed_dim
        self.sample_rate = config.log_mel.sample_rate
        self.bands = config.log_mel.n_mels // config.patch
        self.frame_rate = self.sample_rate / config.log_mel.hop_samples / config.patch
        self.log_mel = LogMel(config.log_mel)
        self.init_bn = nn.BatchNorm1d(config.log_mel.n_mels, momentum=0.01)
        self.patch_embed = _PatchEmbed(self.dim, config.patch)
        columns = config.target_length // config.patch
        self.time_pos_embed = nn.Parameter(torch.randn(1, self.dim, 1, columns) * 0.02)
        self.freq_pos_embed = nn.Parameter(torch.randn(1, self.dim, self.bands, 1) * 0.02)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(self.dim, eps=1e-6)
        self.outputlayer = (
            nn.Sequential(nn.LayerNorm(self.dim), nn.Linear(self.dim, config.outputdim))
            if config.outputdim
            else None
        )

    def forward(self, waveforms: Float[Tensor, "B T"], lengths: Int[Tensor, " B"]) -> Frames:
        """Frames of zero-padded clips; `lengths` in samples. A clip's frames do not depend on its
        batch.
        """
        clips = [self.log_mel(w[: int(n)]) for w, n in zip(waveforms, lengths, strict=True)]
        parts = [self._chunks(clip) for clip in clips]
        tokens, mask = self._encode([chunk for chunks in parts for chunk in chunks])
        pooled, column_mask = self._by_time(tokens, mask)
        rows: list[Tensor] = []
        row_masks: list[Tensor] = []
        start = 0
        for clip, chunks in zip(clips, parts, strict=True):
            stop = start + len(chunks)
            rows.append(pooled[start:stop].flatten(0, 1))
            row_masks.append(self._real_columns(column_mask[start:stop], clip.shape[1]))
            start = stop
        pad = nn.utils.rnn.pad_sequence
        return Frames(pad(rows, batch_first=True), pad(row_masks, batch_first=True))

    def tokens(self, log_mel: Float[Tensor, "B M F"]) -> Float[Tensor, "B N D"]:
        """Patch tokens after the last norm, frequency-major, for at most `target_length` frames."""
        return self._encode([_Chunk(clip, clip.shape[1] // self.config.patch) for clip in log_mel])[
            0
        ]

    def scores(self, log_mel: Float[Tensor, "B M F"]) -> Float[Tensor, "B classes"]:
        """AudioSet class probabilities, averaged over chunks for clips longer than `target_length`
        frames.
        """
        if self.outputlayer is None:
            raise CheckpointError("this CED has no tagging head (outputdim = 0)")
        by_clip: list[Tensor] = []
        for clip in log_mel:
            tokens, _ = self._encode(self._chunks(clip))
            by_clip.append(self.outputlayer(tokens.mean(1)).sigmoid().mean(0))
        return torch.stack(by_clip)

    def _chunks(self, clip: Float[Tensor, "M F"]) -> list[_Chunk]:
        limit, patch, frames = self.config.target_length, self.config.patch, clip.shape[1]
        if frames <= limit:
            return [_Chunk(clip, max(1, frames // patch))]
        return [_Chunk(part, limit // patch) for part in clip.split(limit, dim=1)]

    def _encode(self, chunks: list[_Chunk]) -> tuple[Float[Tensor, "B N D"], Bool[Tensor, "B N"]]:
        columns = torch.tensor([chunk.columns for chunk in chunks])
        width = int(columns.max()) * self.config.patch
        frames = torch.tensor([min(width, chunk.log_mel.shape[1]) for chunk in chunks])
        batch = torch.stack(
            [
                nn.functional.pad(chunk.log_mel[:, :n], (0, width - n))
                for chunk, n in zip(chunks, frames.tolist(), strict=True)
            ]
        )
        padding = torch.arange(width)[None, :] >= frames[:, None]
        x = self.init_bn(batch).masked_fill(padding[:, None, :].to(batch.device), 0.0)
        x = self.patch_embed(x)
        x = x + self.time_pos_embed[..., : x.shape[-1]] + self.freq_pos_embed
        mask = torch.arange(x.shape[-1])[None, :] < columns[:, None]
        mask = repeat(mask.to(x.device), "b t -> b (f t)", f=self.bands)
        x = rearrange(x, "b d f t -> b (f t) d")
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x), mask

    def _by_time(
        self, tokens: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"]
    ) -> tuple[Float[Tensor, "B T D"], Bool[Tensor, "B T"]]:
        """Tokens in time order: frequencies are pooled (or kept side by side) before chunks are
        joined.
        """
        by_band = rearrange(tokens, "b (f t) d -> b t f d", f=self.bands)
        band_mask = rearrange(mask, "b (f t) -> b t f", f=self.bands)
        if self.config.freq_pool == "mean":
            return by_band.mean(2), band_mask[..., 0]
        return by_band.flatten(1, 2), band_mask.flatten(1, 2)

    def _real_columns(self, mask: Bool[Tensor, "K N"], frames: int) -> Bool[Tensor, " KN"]:
        """`mask` of one clip without the columns that hold only padding of the last chunk."""
        columns = -(-frames // self.config.patch)
        per_column = 1 if self.config.freq_pool == "mean" else self.bands
        mask = mask.flatten()
        return mask & (torch.arange(len(mask), device=mask.device) < columns * per_column)


def hub_config(settings: dict[str, Any]) -> CEDConfig:
    """The sizes in the `config.json` of a hub folder (`mispeech/ced-*`); CED-Base's where it has
    none.

    Raises:
        CheckpointError: it has settings that no CED checkpoint uses (overlapping patches, another
            pooling).
    """
    patch = settings.get("patch_size", 16)
    if settings.get("patch_stride", patch) != patch or settings.get("pooling", "mean") != "mean":
        raise CheckpointError("CED config: expected patches without overlap and pooling 'mean'")
    n_fft = settings.get("n_fft", 512)
    if settings.get("win_size", n_fft) != n_fft:
        raise CheckpointError("CED config: expected win_size to equal n_fft")
    front_end = {"n_fft": "n_fft", "hop_size": "hop_samples", "n_mels": "n_mels"}
    front_end |= {"f_min": "f_min", "f_max": "f_max"}
    sizes = ("embed_dim", "depth", "num_heads", "mlp_ratio", "target_length", "outputdim")
    return validate(
        CEDConfig,
        {key: settings[key] for key in sizes if key in settings}
        | {"patch": patch}
        | {"log_mel": {ours: settings[hub] for hub, ours in front_end.items() if hub in settings}},
        "CED config",
    )


def ced_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A public CED state dict with our key names.

    Accepts the original layout (`init_bn.1.*`, optionally under a top-level key `model.`) and the
    hub's (`encoder.*`).
    """
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        key = key.removeprefix("model.").removeprefix("encoder.")
        renamed[key.replace("init_bn.1.", "init_bn.")] = value
    return renamed
