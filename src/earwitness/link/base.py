"""What every bridge has in common: one call, named losses, closed-form statistics, seeded noise."""

from functools import lru_cache
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import normalize, pairwise_distance

from earwitness.config import Strict
from earwitness.errors import DataError, TrainingError
from earwitness.link.diffusion import cosine, scaled_linear

Side = Literal["audio", "text"]
"""Which encoder an embedding came from."""

Schedule = Literal["scaled_linear", "cosine"]


class BridgeConfig(Strict):
    """What every bridge needs. Each kind adds its own `kind`, settings and `build`."""

    dim: PositiveInt = 512
    """C, the size of an embedding; in a captioner always the encoder's"""

    def build(self) -> "Bridge":
        """A new, untrained bridge with these settings."""
        raise NotImplementedError


class Bridge(nn.Module):
    """Maps a unit-norm embedding to the unit-norm embedding that the caption decoder reads.

    `trains` says whether `training_loss` has anything to train, `needs_statistics` whether
    `fit_statistics` must see data first. Checkpoints are plain tensors and load strictly.
    """

    trains: ClassVar[bool] = False
    needs_statistics: ClassVar[bool] = False

    def __init__(self, config: BridgeConfig) -> None:
        super().__init__()
        self.config = config

    def forward(
        self,
        e: Float[Tensor, "B C"],
        *,
        seed: int = 0,
        side: Side = "audio",
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B C"]:
        """The bridged embeddings, unit norm.

        Without a `generator` every row gets the same noise, a function of `seed` alone: a row's
        result then does not depend on its neighbors or their order, and changes smoothly with its
        embedding.
        With a `generator` each row gets fresh noise, as decoder training needs. `side` says which
        encoder `e` came from: Diffusion-Link ignores it; methods that only move audio return text
        as the decoder should see it in text-only training.
        """
        if e.shape[1] != self.config.dim:
            raise DataError(
                f"this bridge expects embeddings of {self.config.dim} numbers, got {e.shape[1]}"
            )
        return normalize(self._bridged(normalize(e.float(), dim=1), side, Noise(seed, generator)))

    def training_loss(
        self,
        audio: Float[Tensor, "B C"],
        text: Float[Tensor, "B C"],
        generator: torch.Generator,
    ) -> dict[str, Float[Tensor, ""]]:
        """Named terms of the objective on paired embeddings; their sum is minimized.

        Each term is already multiplied by its weight in the configuration; a weight of 0 drops
        its term. All randomness comes from `generator`.

        Raises:
            TrainingError: this bridge has nothing to train.
        """
        raise TrainingError(
            f"{type(self).__name__} has nothing to train; "
            "train diffusion_link, regressor, diffusion_bridge or conditional_prior"
        )

    @torch.no_grad()
    def fit_statistics(self, audio: Float[Tensor, "N C"], text: Float[Tensor, "M C"]) -> None:
        """Fits the statistics this bridge needs to the training embeddings; most need none.

        The rows need not be paired.
        """

    def _bridged(self, x: Tensor, side: Side, noise: "Noise") -> Tensor:
        raise NotImplementedError


class Noise:
    """Standard normal noise: from a seed one vector for all rows, from a generator fresh rows."""

    def __init__(self, seed: int, generator: torch.Generator | None = None) -> None:
        self._shared = generator is None
        self._generator = torch.Generator().manual_seed(seed) if generator is None else generator

    def like(self, x: Float[Tensor, "B C"]) -> Float[Tensor, "B C"]:
        """The next noise for the rows of `x`, drawn on the generator's device."""
        rows = 1 if self._shared else x.shape[0]
        noise = torch.randn(
            (rows, x.shape[1]), generator=self._generator, device=self._generator.device
        )
        return noise.to(x.device).expand_as(x)


class ModalityMeans(nn.Module):
    """The mean embedding of each modality, and the mean length of a centered text embedding."""

    audio: Tensor
    text: Tensor
    text_radius: Tensor
    fitted: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("audio", torch.zeros(dim))
        self.register_buffer("text", torch.zeros(dim))
        self.register_buffer("text_radius", torch.zeros(()))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.uint8))

    def fit(self, audio: Float[Tensor, "N C"], text: Float[Tensor, "M C"]) -> None:
        """Sets the means. Raises DataError when a side is empty or not finite."""
        for name, rows in (("audio", audio), ("text", text)):
            check_rows(name, rows, len(self.audio))
            getattr(self, name).copy_(normalize(rows.float(), dim=1).mean(dim=0))
        radii = pairwise_distance(normalize(text.float(), dim=1), self.text, eps=0.0)
        self.text_radius.copy_(radii.mean())
        self.fitted.fill_(1)

    def of(self, side: Side) -> Float[Tensor, " C"]:
        """The mean of `side`. Raises TrainingError before `fit`."""
        self.check()
        return (self.audio if side == "audio" else self.text).float()

    def check(self) -> None:
        """Raises TrainingError before `fit`."""
        if not self.fitted:
            raise TrainingError(
                "this bridge has no statistics yet; call fit_statistics(audio, text) first"
            )


def check_rows(name: str, rows: Float[Tensor, "N D"], dim: int) -> None:
    """Raises DataError unless `rows` are one or more finite embeddings of `dim` numbers."""
    if len(rows) == 0 or rows.shape[1] != dim:
        raise DataError(
            f"{name} embeddings of shape {tuple(rows.shape)}: expected at least one row of {dim}"
        )
    if not bool(torch.isfinite(rows).all()):
        raise DataError(f"{name} embeddings hold numbers that are not finite")


@lru_cache(maxsize=16)
def alpha_bar(schedule: Schedule, steps: int, device: torch.device) -> Float[Tensor, " K"]:
    """The noise schedule on `device`, float32.

    Not a buffer of its bridge: a cast of the module to bfloat16 would round the first values to 1.
    """
    # A tensor created in inference mode could not be used in training later.
    with torch.inference_mode(False):
        return (scaled_linear if schedule == "scaled_linear" else cosine)(steps).to(device)


def random_times(
    steps: int, like: Float[Tensor, "B C"], generator: torch.Generator
) -> Int[Tensor, " B"]:
    """One uniform time in 0 .. steps - 1 for each row of `like`, on its device."""
    times = torch.randint(steps, (like.shape[0],), generator=generator, device=generator.device)
    return times.to(like.device)
