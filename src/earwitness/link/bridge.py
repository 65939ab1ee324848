"""Diffusion-Link (arXiv 2510.11330): diffusion that carries CLAP audio embeddings to the text side.

Both modalities run through one forward process; one unconditional network predicts the clean text
embedding from either. Trained on pairs; at inference an embedding is noised to an intermediate
time and predicted back. The paper's figure 1 fixes this; numbers and equations that are not
public follow its predecessor SEED (arXiv 2505.16798) or are choices, each marked where it is made.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float
from pydantic import AliasChoices, Field, PositiveInt, model_validator
from torch import Tensor
from torch.nn.functional import cosine_similarity, l1_loss, mse_loss, normalize

from earwitness.link.base import Bridge, Noise, Schedule, Side, alpha_bar, random_times
from earwitness.link.diffusion import add_noise, ddim, ddim_times
from earwitness.link.network import NetworkConfig, ResidualMLP
from earwitness.link.topology import Topology, topology_loss

LOSSES = {"l1": l1_loss, "mse": mse_loss}


class DiffusionLinkConfig(NetworkConfig):
    """Settings of Diffusion-Link. Source of each default: [paper], [SEED], or [choice]."""

    kind: Literal["diffusion_link"] = "diffusion_link"
    diffusion_steps: PositiveInt = 1000
    """K [SEED]"""
    schedule: Schedule = "scaled_linear"
    """[SEED]"""
    loss: Literal["l1", "mse"] = "l1"
    """distance of the cross-sample prediction loss [SEED]"""
    audio_weight: float = Field(default=1.0, ge=0.0)
    """of the audio term; the text term has weight 1 [choice]"""
    paired_time: bool = True
    """the two members of a pair share their time, never their noise [choice; SEED: no]"""
    topology: Topology = "gram"
    """[choice]"""
    topology_weight: float = Field(default=1.0, ge=0.0)
    """lambda [choice]"""
    topology_neighbors: PositiveInt = Field(
        default=8, validation_alias=AliasChoices("topology_neighbors", "topology_neighbours")
    )
    """for "knn_gram" """
    topology_time_weight: Literal["none", "alpha_bar"] = "none"
    """"alpha_bar" puts less weight on predictions from heavy noise [choice]"""
    start_time: int = Field(default=50, ge=0)
    """t* of inference [SEED]; choose it on validation pairs with `start_time_sweep`"""
    steps: PositiveInt = 1
    """1: one-step prediction [SEED]; more: DDIM from t*"""
    add_start_noise: bool = True
    """False: the clean embedding in place of its noised version, as in Diffusion Bridge"""
    draws: PositiveInt = 1
    """noise draws whose predictions are averaged [choice]"""

    @model_validator(mode="after")
    def _start_lies_in_schedule(self) -> "DiffusionLinkConfig":
        if self.start_time >= self.diffusion_steps:
            raise ValueError(
                f"start_time {self.start_time} must be below diffusion_steps {self.diffusion_steps}"
            )
        return self

    def build(self) -> "DiffusionLink":
        """An untrained bridge."""
        return DiffusionLink(self)


class DiffusionLink(Bridge):
    """The bridge of the paper. Before training its result is the zero vector."""

    trains: ClassVar[bool] = True
    config: DiffusionLinkConfig

    def __init__(self, config: DiffusionLinkConfig) -> None:
        super().__init__(config)
        self.network = ResidualMLP(config)

    @property
    def alpha_bar(self) -> Float[Tensor, " K"]:
        """The noise schedule, on the network's device."""
        device = self.network.input.weight.device
        return alpha_bar(self.config.schedule, self.config.diffusion_steps, device)

    def training_loss(
        self,
        audio: Float[Tensor, "B C"],
        text: Float[Tensor, "B C"],
        generator: torch.Generator,
    ) -> dict[str, Float[Tensor, ""]]:
        """`cross_audio` and `cross_text` (cross-sample prediction) and `topology`, weighted.

        `d(f(e_t^a, t), e_0^t) + d(f(e_t^t, t), e_0^t) + lambda L_topology`: from either member of
        a pair the network predicts the clean text embedding. The equation is read from the paper's
        figure 1(a) and SEED's loss; the topology term is the mean over both branches.
        """
        config = self.config
        e_a, e_t = self._scaled(audio), self._scaled(text)
        t_a = random_times(config.diffusion_steps, e_a, generator)
        t_t = t_a if config.paired_time else random_times(config.diffusion_steps, e_t, generator)
        noise = Noise(0, generator)
        clean, times = torch.cat([e_a, e_t]), torch.cat([t_a, t_t])
        noised = add_noise(clean, self.alpha_bar[times], noise.like(clean))
        from_audio, from_text = self.network(noised, times).chunk(2)
        distance = LOSSES[config.loss]
        terms = {"cross_text": distance(from_text, e_t)}
        if config.audio_weight > 0:
            terms["cross_audio"] = config.audio_weight * distance(from_audio, e_t)
        if config.topology_weight > 0:
            branches = ((from_audio, t_a), (from_text, t_t))
            losses = [self._topology(predicted, e_t, t) for predicted, t in branches]
            terms["topology"] = config.topology_weight * (losses[0] + losses[1]) / 2
        return terms

    def bridged_from(
        self,
        e: Float[Tensor, "B C"],
        noise: Noise,
        start_time: int,
        steps: int,
    ) -> Float[Tensor, "B C"]:
        """Unit-norm results of a pass from `start_time` in `steps` denoiser calls, draws averaged.

        At the last time an unconditional network has almost no signal left (-31 dB), so the start
        is earlier; SEED found one step from time 50 best. Averaged draws estimate the mean of
        the prediction, so they are averaged before the normalization.
        """
        x_0 = self._scaled(e)
        times = ddim_times(start_time, steps)
        abar = self.alpha_bar[start_time].expand(len(x_0))
        total = torch.zeros_like(x_0)
        for _ in range(self.config.draws if self.config.add_start_noise else 1):
            x_t = add_noise(x_0, abar, noise.like(x_0)) if self.config.add_start_noise else x_0
            total = total + ddim(self.network, x_t, times, self.alpha_bar)
        return normalize(total, dim=1)

    def _bridged(self, x: Tensor, side: Side, noise: Noise) -> Tensor:
        return self.bridged_from(x, noise, self.config.start_time, self.config.steps)

    def _scaled(self, e: Tensor) -> Tensor:
        # At norm 1 the noise would drown the embedding; at sqrt(C) both have the same power.
        return normalize(e.float(), dim=1) * self.config.dim**0.5

    def _topology(self, predicted: Tensor, target: Tensor, t: Tensor) -> Tensor:
        config = self.config
        weight = self.alpha_bar[t] if config.topology_time_weight == "alpha_bar" else None
        scale = config.dim**-0.5
        return topology_loss(
            predicted * scale, target * scale, config.topology, config.topology_neighbors, weight
        )


class SweepPoint(NamedTuple):
    """Mean cosine between bridged audio and its text for one way to sample, and the standard error
    of its difference, pair by pair, from the best way.
    """

    start_time: int
    steps: int
    cosine: float
    error: float


@torch.no_grad()
def start_time_sweep(
    link: DiffusionLink,
    audio: Float[Tensor, "B C"],
    text: Float[Tensor, "B C"],
    start_times: tuple[int, ...] = (0, 10, 50, 100, 200, 300, 400, 500, 600),
    steps: tuple[int, ...] = (1, 5, 50),
    seed: int = 0,
) -> list[SweepPoint]:
    """Every combination of `start_times` and `steps`, best paired cosine first.

    Time 0 with one step is the regression control: it shows what the diffusion itself adds.
    """
    ways = [(start_time, count) for start_time in start_times for count in steps]
    cosines = torch.stack(
        [cosine_similarity(link.bridged_from(audio, Noise(seed), *way), text) for way in ways]
    )
    means = cosines.mean(1)
    behind = cosines[means.argmax()] - cosines
    errors = behind.std(1, correction=0) / len(audio) ** 0.5
    points = [
        SweepPoint(*way, float(value), float(error))
        for way, value, error in zip(ways, means, errors, strict=True)
    ]
    return sorted(points, key=lambda point: -point.cosine)


def simplest_start(points: Sequence[SweepPoint]) -> SweepPoint:
    """The fewest steps, and then the earliest start, within one standard error of the best point.

    The one-standard-error rule (Breiman et al. 1984, section 3.4.3), on differences pair by pair: a
    start that wins by chance on the validation pairs is not taken.
    """
    best = max(point.cosine for point in points)
    near = [point for point in points if best - point.cosine <= point.error]
    return min(near, key=lambda point: (point.steps, point.start_time))
