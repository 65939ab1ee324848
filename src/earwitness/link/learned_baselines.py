"""Learned baselines of Diffusion-Link, on the same residual MLP and so at the same training cost:

a plain regressor, Diffusion Bridge (CVPR 2025), and a conditional prior after DiffGAP.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor
from torch.nn.functional import mse_loss, normalize

from earwitness.link.base import Bridge, ModalityMeans, Noise, Side, alpha_bar, random_times
from earwitness.link.bridge import LOSSES
from earwitness.link.diffusion import (
    add_noise,
    ddim,
    ddim_times,
    x0_from_noise,
)
from earwitness.link.network import NetworkConfig, ResidualMLP


class RegressorConfig(NetworkConfig):
    """Settings of the regressor."""

    kind: Literal["regressor"] = "regressor"
    loss: Literal["l1", "mse"] = "l1"

    def build(self) -> "Regressor":
        """An untrained regressor."""
        return Regressor(self)


class Regressor(Bridge):
    """Text embedding regressed from the audio embedding: the network of Diffusion-Link, no noise.

    The control that every diffusion bridge has to beat. Text passes unchanged.
    """

    trains: ClassVar[bool] = True
    config: RegressorConfig

    def __init__(self, config: RegressorConfig) -> None:
        super().__init__(config)
        self.network = ResidualMLP(config)

    def training_loss(
        self,
        audio: Float[Tensor, "B C"],
        text: Float[Tensor, "B C"],
        generator: torch.Generator,
    ) -> dict[str, Float[Tensor, ""]]:
        """`regression`: distance from the prediction to the paired text, at norm sqrt(C)."""
        predicted = self._predicted(_on_sphere(audio))
        return {"regression": LOSSES[self.config.loss](predicted, _on_sphere(text))}

    def _bridged(self, x: Tensor, side: Side, noise: Noise) -> Tensor:
        return x if side == "text" else self._predicted(_on_sphere(x))

    def _predicted(self, x: Tensor) -> Tensor:
        return self.network(x, torch.zeros(len(x), dtype=torch.long, device=x.device))


class DiffusionBridgeConfig(NetworkConfig):
    """Settings of Diffusion Bridge; the defaults are those of its image captioning on MSCOCO."""

    kind: Literal["diffusion_bridge"] = "diffusion_bridge"
    diffusion_steps: PositiveInt = 1000
    norm: PositiveFloat = 5.0
    """length of every centered vector, and of the network's input at every time"""
    start_time: int = Field(default=600, ge=0)
    """where audio enters, without noise"""
    steps: PositiveInt = 5
    text_start_time: int = Field(default=400, ge=0)
    """where text is noised to and denoised from, as augmentation of decoder training"""
    restore_mean: bool = True
    """put the text mean back, so that results compare with raw text; the original does not"""

    def build(self) -> "DiffusionBridge":
        """An untrained bridge without statistics."""
        return DiffusionBridge(self)

    @model_validator(mode="after")
    def _starts_lie_in_schedule(self) -> "DiffusionBridgeConfig":
        if max(self.start_time, self.text_start_time) >= self.diffusion_steps:
            raise ValueError(
                f"start_time {self.start_time} and text_start_time {self.text_start_time} "
                f"must be below diffusion_steps {self.diffusion_steps}"
            )
        return self


class DiffusionBridge(Bridge):
    """Diffusion prior of text alone; a centered audio embedding enters it partway, as if noised.

    "Diffusion Bridge: Leveraging Diffusion Model to Reduce the Modality Gap" (CVPR 2025). The
    residual MLP replaces its one-dimensional U-Net, which makes it compute-matched.
    """

    trains: ClassVar[bool] = True
    needs_statistics: ClassVar[bool] = True
    config: DiffusionBridgeConfig

    def __init__(self, config: DiffusionBridgeConfig) -> None:
        super().__init__(config)
        self.network = ResidualMLP(config)
        self.means = ModalityMeans(config.dim)

    @property
    def alpha_bar(self) -> Float[Tensor, " K"]:
        """The cosine schedule, on the network's device."""
        device = self.network.input.weight.device
        return alpha_bar("cosine", self.config.diffusion_steps, device)

    @torch.no_grad()
    def fit_statistics(self, audio: Float[Tensor, "N C"], text: Float[Tensor, "M C"]) -> None:
        """Takes the two means and the mean length of a centered text embedding."""
        self.means.fit(audio, text)

    def training_loss(
        self,
        audio: Float[Tensor, "B C"],
        text: Float[Tensor, "B C"],
        generator: torch.Generator,
    ) -> dict[str, Float[Tensor, ""]]:
        """`denoising` of text alone: squared error of x_0 times the signal-to-noise ratio."""
        x_0 = self._centered(normalize(text.float(), dim=1), "text")
        t = random_times(self.config.diffusion_steps, x_0, generator)
        abar = self.alpha_bar[t]
        noised = add_noise(x_0, abar, Noise(0, generator).like(x_0))
        errors = mse_loss(self._denoise(noised, t), x_0, reduction="none").mean(dim=1)
        return {"denoising": (abar / (1.0 - abar) * errors).mean()}

    def _bridged(self, x: Tensor, side: Side, noise: Noise) -> Tensor:
        config = self.config
        x_t, start = self._centered(x, side), config.start_time
        if side == "text":
            start = config.text_start_time
            x_t = add_noise(x_t, self.alpha_bar[start].expand(len(x)), noise.like(x_t))
        y = ddim(self._denoise, x_t, ddim_times(start, config.steps), self.alpha_bar)
        if not config.restore_mean:
            return y
        return normalize(y, dim=1) * self.means.text_radius.float() + self.means.of("text")

    def _centered(self, x: Tensor, side: Side) -> Tensor:
        return normalize(x - self.means.of(side), dim=1) * self.config.norm

    def _denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.network(normalize(x_t, dim=1) * self.config.norm, t)


class ConditionalPriorConfig(NetworkConfig):
    """Settings of the conditional prior."""

    kind: Literal["conditional_prior"] = "conditional_prior"
    diffusion_steps: PositiveInt = 1000
    predicts: Literal["noise", "x_0"] = "noise"
    steps: PositiveInt = 50
    draws: PositiveInt = 1
    """samples whose predictions are averaged"""

    def build(self) -> "ConditionalPrior":
        """An untrained prior."""
        return ConditionalPrior(self)


class ConditionalPrior(Bridge):
    """Text embedding sampled from pure noise, given the audio embedding; text passes unchanged.

    The audio-to-text half of DiffGAP (arXiv 2503.12131), trained by itself on frozen embeddings;
    also the form of unCLIP's diffusion prior (arXiv 2204.06125). The context inputs add 16 % more
    parameters to the shared network.
    """

    trains: ClassVar[bool] = True
    config: ConditionalPriorConfig

    def __init__(self, config: ConditionalPriorConfig) -> None:
        super().__init__(config)
        self.network = ResidualMLP(config, context_dim=config.dim)

    @property
    def alpha_bar(self) -> Float[Tensor, " K"]:
        """The scaled-linear schedule, on the network's device."""
        device = self.network.input.weight.device
        return alpha_bar("scaled_linear", self.config.diffusion_steps, device)

    def training_loss(
        self,
        audio: Float[Tensor, "B C"],
        text: Float[Tensor, "B C"],
        generator: torch.Generator,
    ) -> dict[str, Float[Tensor, ""]]:
        """`denoising`: squared error of the predicted noise, or of x_0 if so configured."""
        x_0 = _on_sphere(text)
        t = random_times(self.config.diffusion_steps, x_0, generator)
        noise = Noise(0, generator).like(x_0)
        noised = add_noise(x_0, self.alpha_bar[t], noise)
        target = noise if self.config.predicts == "noise" else x_0
        return {"denoising": mse_loss(self.network(noised, t, _on_sphere(audio)), target)}

    def _bridged(self, x: Tensor, side: Side, noise: Noise) -> Tensor:
        if side == "text":
            return x
        context = _on_sphere(x)

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            out = self.network(x_t, t, context)
            if self.config.predicts == "x_0":
                return out
            return x0_from_noise(x_t, self.alpha_bar[t], out)

        times = ddim_times(self.config.diffusion_steps - 1, self.config.steps)
        total = torch.zeros_like(x)
        for _ in range(self.config.draws):
            total = total + ddim(denoise, noise.like(x), times, self.alpha_bar)
        return total


def _on_sphere(e: Tensor) -> Tensor:
    return normalize(e.float(), dim=1) * e.shape[1] ** 0.5
