"""Closed-form bridges: none, mean shift, noise injection, projection onto a text memory.

They share Diffusion-Link's interface, so a comparison changes one word of a recipe.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn.functional import normalize

from earwitness.errors import TrainingError
from earwitness.link.base import Bridge, BridgeConfig, ModalityMeans, Noise, Side, check_rows


class NoBridgeConfig(BridgeConfig):
    """No settings of its own."""

    kind: Literal["none"] = "none"

    def build(self) -> "NoBridge":
        """The identity."""
        return NoBridge(self)


class NoBridge(Bridge):
    """The embedding as it is: the baseline rows of Diffusion-Link."""

    def _bridged(self, x: Tensor, side: Side, noise: Noise) -> Tensor:
        return x


class _WithMeans(Bridge):
    """A bridge that holds the mean of each modality."""

    def __init__(self, config: BridgeConfig) -> None:
        super().__init__(config)
        self.means = ModalityMeans(config.dim)

    @torch.no_grad()
    def fit_statistics(self, audio: Float[Tensor, "N C"], text: Float[Tensor, "M C"]) -> None:
        """Takes the two means."""
        self.means.fit(audio, text)


class MeanShiftConfig(BridgeConfig):
    """Settings of the mean shift."""

    kind: Literal["mean_shift"] = "mean_shift"
    noise_variance: float = Field(default=0.0, ge=0.0)
    """on text embeddings in text-only training; above 0 this is the full C3"""

    def build(self) -> "MeanShift":
        """A mean shift without statistics."""
        return MeanShift(self)


class MeanShift(_WithMeans):
    """Audio moved by the difference of the two means; text unchanged, or noised if configured.

    C3, "Connect, Collapse, Corrupt" (arXiv 2401.08567): collapse removes each modality's mean,
    which up to a constant replaces the audio mean with the text mean; corrupt is the noise.
    """

    needs_statistics: ClassVar[bool] = True
    config: MeanShiftConfig

    def _bridged(self, x: Tensor, side: Side, noise: Noise) -> Tensor:
        self.means.check()
        if side == "text":
            return _jittered(x, self.config.noise_variance, noise)
        return x - self.means.of("audio") + self.means.of("text")


class NoiseInjectionConfig(BridgeConfig):
    """Settings of noise injection."""

    kind: Literal["noise_injection"] = "noise_injection"
    variance: float = Field(default=0.016, ge=0.0)
    """of the noise on each number; CapDec 0.016, WSAC's script 0.001"""
    offset: bool = False
    """also move text by the mean gap, as WSAC can; needs `fit_statistics`"""

    def build(self) -> "NoiseInjection":
        """Noise injection without statistics."""
        return NoiseInjection(self)


class NoiseInjection(_WithMeans):
    """Audio unchanged; text with Gaussian noise, so that the decoder learns to tolerate the gap.

    CapDec (arXiv 2211.00575); for audio WSAC (arXiv 2309.12242) and training without audio
    (arXiv 2309.07372).
    """

    config: NoiseInjectionConfig

    def _bridged(self, x: Tensor, side: Side, noise: Noise) -> Tensor:
        if side == "audio":
            return x
        if self.config.offset:
            x = normalize(x + self.means.of("audio") - self.means.of("text"), dim=1)
        return _jittered(x, self.config.variance, noise)


class TextMemoryConfig(BridgeConfig):
    """Settings of the projection onto a text memory."""

    kind: Literal["text_memory"] = "text_memory"
    memory_size: PositiveInt = 16_384
    """rows kept; more texts than that are subsampled evenly"""
    temperature: PositiveFloat = 0.07
    """of the softmax; CLAP's learned temperature, which starts at 0.07"""

    def build(self) -> "TextMemory":
        """An empty memory."""
        return TextMemory(self)


class TextMemory(Bridge):
    """Audio as the softmax-weighted mean of stored text embeddings; text unchanged.

    Projection decoding of DeCap (arXiv 2303.03032) and DRCap (arXiv 2410.09472):
    `softmax(e S^T / temperature) S`. It needs the memory at inference: external knowledge that
    Diffusion-Link does without.
    """

    needs_statistics: ClassVar[bool] = True
    config: TextMemoryConfig
    memory: Tensor
    count: Tensor

    def __init__(self, config: TextMemoryConfig) -> None:
        super().__init__(config)
        self.register_buffer("memory", torch.zeros(config.memory_size, config.dim))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def fit_statistics(self, audio: Float[Tensor, "N C"], text: Float[Tensor, "M C"]) -> None:
        """Stores `text`, at most `memory_size` rows spread evenly over it; `audio` is not used."""
        check_rows("text", text, self.config.dim)
        count = min(len(text), self.config.memory_size)
        rows = torch.arange(count, device=text.device) * len(text) // count
        self.memory.zero_()
        self.memory[:count] = normalize(text[rows].float(), dim=1).to(self.memory.device)
        self.count.fill_(count)

    def _bridged(self, x: Tensor, side: Side, noise: Noise) -> Tensor:
        if not self.count:
            raise TrainingError("the text memory is empty; call fit_statistics(audio, text) first")
        if side == "text":
            return x
        memory = self.memory[: int(self.count)].float()
        return torch.softmax(x @ memory.T / self.config.temperature, dim=1) @ memory


def _jittered(x: Tensor, variance: float, noise: Noise) -> Tensor:
    return x + variance**0.5 * noise.like(x) if variance > 0 else x
