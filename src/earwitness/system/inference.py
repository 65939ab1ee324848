"""What a torch captioner offers to the layers above it: captions, memory, guide words, bridge."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float

from earwitness.caption import BridgeEffect, Caption, CaptionCalls, Decoding, Precision
from earwitness.encoders import EmbeddingFrames
from earwitness.errors import ConfigError
from earwitness.link import LinkPrefix, NoBridge, NoBridgeConfig
from earwitness.models.card import min_score
from earwitness.system.audio_text import TorchAudioText
from earwitness.system.devices import autocast

if TYPE_CHECKING:
    from earwitness.encoders.base import FrameEncoder, Frames
    from earwitness.system.captioner import AudioTokens, CaptionerConfig
    from earwitness.system.decoder import Decoder, Generated


_CPU_BATCH = 8
_GPU_BATCH = 64


class Inference(CaptionCalls):
    """The half of `TorchCaptioner` that uses a model; the other half builds and trains it."""

    if TYPE_CHECKING:
        name: str
        card: dict[str, Any]
        config: CaptionerConfig
        encoder: FrameEncoder
        decoder: Decoder
        prefix: Any
        guide: Any

        @property
        def device(self) -> torch.device: ...
        def eval(self) -> Any: ...
        def encode(self, waveforms: Sequence[np.ndarray]) -> Frames: ...
        def audio_tokens(self, frames: Frames) -> AudioTokens: ...
        def guide_bias(self, audio_tokens: AudioTokens) -> torch.Tensor | None: ...
        def generate(self, z_a: AudioTokens, settings: Decoding) -> list[list[Generated]]: ...

    _fitting: int | None = None
    """clips that fit in the memory of the GPU, as estimated from the first batch"""
    _ceiling: int | None = None
    """half of the last batch that did not fit"""

    @property
    def sample_rate(self) -> int:
        """Hz of the waveforms that the encoder takes."""
        return self.encoder.sample_rate

    @property
    def max_seconds(self) -> float:
        """The longest clip that is captioned as a whole."""
        return self.config.max_seconds

    @property
    def decoding(self) -> Decoding:
        """The model's own search settings."""
        return self.config.decoding

    @property
    def min_score(self) -> float:
        """The minimum score in the model's card. Raises CheckpointError."""
        return min_score(self.card, self.name)

    @property
    def batch_limit(self) -> int:
        """The most clips worth collecting for one batch."""
        return _CPU_BATCH if self.device.type == "cpu" else _GPU_BATCH

    @property
    def batch_hint(self) -> int:
        """How many clips to caption together now.

        On a GPU the first batch is one clip, whose memory use shows how many fit.
        """
        first = 1 if self.device.type == "cuda" else _CPU_BATCH
        return min(self._fitting or first, self._ceiling or _GPU_BATCH)

    def caption_together(
        self, waveforms: Sequence[Float[np.ndarray, " _"]], decoding: Decoding
    ) -> list[list[Caption]]:
        """The n-best captions of mono waveforms, in several passes if the memory is too small.

        Raises:
            ConfigError: not even one of them fits in memory.
        """
        found: list[list[Caption]] = []
        while len(found) < len(waveforms):
            part = waveforms[len(found) :][: self._ceiling or len(waveforms)]
            rows = self._unless_too_many(part, decoding)
            if rows is None:
                self._ceiling = len(part) // 2
            else:
                found += rows
        if self._fitting is None and self.device.type == "cuda" and found:
            self._fitting = _fitting(self.device, len(waveforms))
        return found

    def _unless_too_many(
        self, waveforms: Sequence[Float[np.ndarray, " _"]], decoding: Decoding
    ) -> list[list[Caption]] | None:
        try:
            return self.caption_at_once(waveforms, decoding)
        except torch.OutOfMemoryError:
            if len(waveforms) > 1:
                return None
            seconds = len(waveforms[0]) / self.sample_rate
            raise ConfigError(
                f"{seconds:.0f} s of sound do not fit in memory at once; expected a smaller "
                "window, fewer beams or precision bf16"
            ) from None

    @torch.inference_mode()
    def caption_at_once(
        self, waveforms: Sequence[Float[np.ndarray, " _"]], decoding: Decoding
    ) -> list[list[Caption]]:
        """The n-best captions of mono waveforms in one pass of the model: hops 2 to 5."""
        self.eval()
        rows = self.generate(self.audio_tokens(self.encode(waveforms)), decoding)
        ends = [len(w) / self.sample_rate for w in waveforms]
        return [
            [self._caption(one, end) for one in row] for row, end in zip(rows, ends, strict=True)
        ]

    def precision(self, kind: Precision) -> AbstractContextManager[None]:
        """Captions made inside are computed in this number format (autocast)."""
        return autocast(self.device, kind)

    @property
    def audio_text(self) -> TorchAudioText | None:
        """The model's own CLAP; None for a model that reads frames."""
        if not isinstance(self.encoder, EmbeddingFrames):
            return None
        return TorchAudioText(self.encoder.encoder)

    @property
    def has_guide(self) -> bool:
        """Whether the model has a Token Guide."""
        return self.guide is not None

    @property
    def has_bridge(self) -> bool:
        """Whether the model has a bridge that can be left out."""
        return isinstance(self.prefix, LinkPrefix) and not isinstance(self.prefix.bridge, NoBridge)

    @torch.inference_mode()
    def guide_words(
        self,
        waveform: Float[np.ndarray, " T"],
        count: int,
        against: Sequence[Float[np.ndarray, " _"]] = (),
    ) -> list[tuple[str, float]]:
        """The whole words that the Token Guide boosts most, and their boosts; none without one.

        Boosts are relative to the mean over the waveforms `against`: nearly all of a boost is the
        same for every sound, and the rest shows what sets this one apart.
        """
        bias = self.guide_bias(self.audio_tokens(self.encode([waveform, *against])))
        if bias is None:
            return []
        own = bias[0] - bias[1:].mean(0) if against else bias[0]
        # Word pieces are boosted too, but mean nothing to a reader.
        words = own.masked_fill(~self.decoder.content_ids(), -math.inf)
        boosts, ids = words.topk(min(count, len(words)))
        names = self.decoder.tokenizer.batch_decode(ids[:, None])
        return [
            (name.strip(), float(boost))
            for name, boost in zip(names, boosts, strict=True)
            if boost > 0
        ]

    @torch.inference_mode()
    def bridge_effect(self, waveform: Float[np.ndarray, " T"]) -> BridgeEffect | None:
        """What the model says without and with its bridge; None for a model that has none."""
        if not self.has_bridge:
            return None
        from earwitness.system.captioner import AudioTokens

        frames = self.encode([waveform])
        e = frames.h[:, 0].float()
        without = NoBridgeConfig(dim=self.encoder.dim).build()
        embeddings = torch.cat([without(e), self.prefix.bridge(e)])
        z = self.prefix.projector(embeddings * self.prefix.scale)
        settings = self.decoding.model_copy(update={"n_best": 1})
        end = len(waveform) / self.sample_rate
        first, second = (
            self.generate(AudioTokens(z[i : i + 1], frames.mask), settings)[0][0] for i in (0, 1)
        )
        captions = self._caption(first, end), self._caption(second, end)
        return BridgeEffect(captions, embeddings.cpu().numpy())

    def _caption(self, found: "Generated", end: float) -> Caption:
        return Caption(found.text, float(np.exp(found.log_probability)), 0.0, end, self.name)


def _fitting(device: torch.device, clips: int) -> int:
    """How many clips like those of the first batch fill half of the free GPU memory."""
    free, _ = torch.cuda.mem_get_info(device)
    used = torch.cuda.max_memory_allocated(device) - torch.cuda.memory_allocated(device)
    return int(max(1, min(_GPU_BATCH, free / 2 // max(1, used / clips))))
