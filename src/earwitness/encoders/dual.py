"""A small CLAP-like dual encoder: the frames of an audio encoder, and a text tower.

Trained with CLIP's symmetric contrastive loss (arXiv 2103.00020), like CLAP (arXiv 2211.06687). It
has the interface of `ClapEncoder`, so the bridges and the captioner work with either. Windows are
fixed in the same way, so that a file always has the same embedding.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn.functional import normalize

from earwitness.config import Strict
from earwitness.encoders.base import FrameEncoder, Frames
from earwitness.encoders.clap_features import window_starts
from earwitness.errors import AudioError, DataError
from earwitness.io.batches import batched
from earwitness.models.hub import WeightsOrigin
from earwitness.models.llama import LlamaSize, llama_config
from earwitness.text import normalize as plain_words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_WINDOWS = 32
_TEXTS = 128
_LARGEST_SCALE = 100.0
"""upper bound of 1 / temperature, as in CLIP"""


class TextTowerConfig(LlamaSize):
    """Sizes of the text tower: a Llama without a head, whose outputs are averaged."""

    layers: PositiveInt = 2
    max_tokens: PositiveInt = 60
    """longer texts are truncated"""


class DualConfig(Strict):
    """Sizes of the dual encoder."""

    dim: PositiveInt = 256
    """C"""
    hidden: PositiveInt = 512
    """hidden width of both heads"""
    attention_heads: PositiveInt = 4
    """attention-weighted means over time in the audio head, in addition to the maximum"""
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)
    temperature: PositiveFloat = 0.07
    """initial temperature of the contrastive loss"""
    window_seconds: PositiveFloat = 10.0
    stride_seconds: PositiveFloat = 10.0
    """between windows; at most one window"""
    text: TextTowerConfig = TextTowerConfig()

    @model_validator(mode="after")
    def _windows_leave_no_hole(self) -> "DualConfig":
        if self.stride_seconds > self.window_seconds:
            raise ValueError(
                f"stride_seconds {self.stride_seconds}: expected at most window_seconds, "
                f"{self.window_seconds}"
            )
        return self


class DualEncoder(nn.Module):
    """Sounds and sentences to unit vectors in one space. `dim` is C, `sample_rate` in Hz."""

    origin: WeightsOrigin | None = None
    """where the weights were loaded from; None if they are new or have changed"""

    def __init__(
        self, frames: FrameEncoder, tokenizer: "PreTrainedTokenizerBase", config: DualConfig
    ) -> None:
        """Untrained heads and an untrained text tower over the frame encoder `frames`."""
        super().__init__()
        self.config, self.tokenizer, self.frames = config, tokenizer, frames
        self.dim, self.sample_rate = config.dim, frames.sample_rate
        self.text = _llama(config.text)
        self.audio_head = AudioHead(frames.dim, config)
        self.text_head = _head(config.text.hidden, config)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(config.temperature)))

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.log_scale.device

    @property
    def scale(self) -> Float[Tensor, ""]:
        """1 / temperature, the factor on cosine similarities in training; at most 100."""
        scale = self.log_scale.exp()
        # Let the gradient through the bound: with a plain clamp the scale could never come back.
        return scale + (scale.clamp(max=_LARGEST_SCALE) - scale).detach()

    def own_parts(self) -> nn.ModuleDict:
        """Everything but the frame encoder, which has its own folder."""
        scale = nn.ParameterDict({"log": self.log_scale})
        parts = {"text": self.text, "audio_head": self.audio_head, "text_head": self.text_head}
        return nn.ModuleDict({**parts, "scale": scale})

    def embed_frames(
        self, h: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"]
    ) -> Float[Tensor, "B C"]:
        """Unit-norm embeddings of windows, given as frames; with gradients."""
        return normalize(self.audio_head(h, mask).float(), dim=1)

    def text_vectors(self, texts: Sequence[str]) -> Float[Tensor, "B C"]:
        """Unit-norm embeddings of sentences, all in one batch; with gradients.

        Raises:
            DataError: a sentence has no word.
        """
        ids, mask = self._tokens(texts)
        # Every token counts the same, except the start token, which is ignored.
        out: Any = self.text(input_ids=ids, attention_mask=mask.long(), use_cache=False)
        weight = mask[:, 1:, None].to(out.last_hidden_state.dtype)
        mean = (out.last_hidden_state[:, 1:] * weight).sum(1) / weight.sum(1)
        return normalize(self.text_head(mean).float(), dim=1)

    @torch.no_grad()
    def embed_audio(self, waveforms: Sequence[Float[Tensor, " _"]]) -> Float[Tensor, "B C"]:
        """Unit-norm embeddings of mono clips of any length at `sample_rate`.

        A clip longer than a window gives the mean of its windows' unit vectors, renormalized.

        Raises:
            AudioError: a clip is empty or not one-dimensional.
        """
        for index, clip in enumerate(waveforms):
            if clip.ndim != 1 or len(clip) == 0:
                raise AudioError(
                    f"clip {index} has shape {tuple(clip.shape)}; expected mono samples"
                )
        window, stride = (
            round(seconds * self.sample_rate)
            for seconds in (self.config.window_seconds, self.config.stride_seconds)
        )
        places = [
            (index, start)
            for index, clip in enumerate(waveforms)
            for start in window_starts(len(clip), window, stride)
        ]
        sums = torch.zeros(len(waveforms), self.dim, device=self.device)
        for batch in batched(places, _WINDOWS):
            clips = [waveforms[index][start : start + window] for index, start in batch]
            for (index, _), e in zip(batch, self._embed_windows(clips), strict=True):
                sums[index] += e
        return normalize(sums, dim=1)

    @torch.no_grad()
    def embed_text(self, texts: Sequence[str]) -> Float[Tensor, "B C"]:
        """Unit-norm embeddings of sentences; case and punctuation do not count.

        Raises:
            DataError: a sentence has no word.
        """
        parts = [self.text_vectors(batch) for batch in batched(texts, _TEXTS)]
        return torch.cat([torch.zeros(0, self.dim, device=self.device), *parts])

    def _embed_windows(self, clips: list[Float[Tensor, " _"]]) -> Float[Tensor, "W C"]:
        lengths = torch.tensor([len(clip) for clip in clips])
        padded = nn.utils.rnn.pad_sequence([clip.float() for clip in clips], batch_first=True)
        return self.embed_frames(*self.frames(padded.to(self.device), lengths.to(self.device)))

    def _tokens(self, texts: Sequence[str]) -> tuple[Int[Tensor, "B L"], Bool[Tensor, "B L"]]:
        words = [plain_words(text) for text in texts]
        blank = [index for index, text in enumerate(words) if not text]
        if blank:
            raise DataError(f"text {blank[0]} has no word: {texts[blank[0]]!r}")
        start: Any = self.tokenizer.bos_token_id
        rows = self.tokenizer(words, add_special_tokens=False).input_ids
        ids = [torch.tensor([start, *row[: self.config.text.max_tokens]]) for row in rows]
        lengths = torch.tensor([len(row) for row in ids])
        padded = nn.utils.rnn.pad_sequence(ids, batch_first=True)
        mask = torch.arange(padded.shape[1])[None, :] < lengths[:, None]
        return padded.to(self.device), mask.to(self.device)


class AudioHead(nn.Module):
    """Frames to one vector: attention-weighted means and maximum over time, then two layers."""

    def __init__(self, frame_dim: int, config: DualConfig) -> None:
        super().__init__()
        self.attention = nn.Linear(frame_dim, config.attention_heads)
        self.head = _head(frame_dim * (config.attention_heads + 1), config)

    def forward(self, h: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"]) -> Float[Tensor, "B C"]:
        """Unnormalized vectors. Frames where `mask` is False are ignored."""
        padding = ~mask[..., None]
        weights = self.attention(h).masked_fill(padding, -torch.inf).softmax(dim=1)
        means = torch.einsum("bnk,bnd->bkd", weights, h.to(weights.dtype)).flatten(1)
        highest = h.masked_fill(padding, -torch.inf).amax(dim=1)
        return self.head(torch.cat([means, highest.to(means.dtype)], dim=1))


class EmbeddingFrames(nn.Module):
    """An embedding encoder (`DualEncoder`, `ClapEncoder`) as a frame encoder: one frame per clip.

    The captioner uses it in place of LAMB's frames.
    """

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder
        self.dim, self.sample_rate = encoder.dim, encoder.sample_rate

    def forward(self, waveforms: Float[Tensor, "B T"], lengths: Int[Tensor, " B"]) -> Frames:
        """`h` has shape [B, 1, C] and unit norm."""
        clips = [w[:n] for w, n in zip(waveforms, lengths.tolist(), strict=True)]
        return one_frame(self.encoder.embed_audio(clips))


def one_frame(e: Float[Tensor, "B C"]) -> Frames:
    """Embeddings as frames: one per clip, none masked."""
    return Frames(e[:, None], torch.ones(len(e), 1, dtype=torch.bool, device=e.device))


def _llama(size: TextTowerConfig) -> nn.Module:
    from transformers import LlamaModel

    return LlamaModel(llama_config(size, pad_token_id=None))


def _head(inputs: int, config: DualConfig) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(inputs),
        nn.Linear(inputs, config.hidden),
        nn.GELU(),
        nn.Dropout(config.dropout),
        nn.Linear(config.hidden, config.dim),
    )
