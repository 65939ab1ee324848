"""Denoising diffusion on vectors, as pure functions: schedules, forward process, one step, DDIM.

Times are integers 0 .. K-1 that index `alpha_bar`, the share of the signal's power that remains:
`x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps` (DDPM, arXiv 2006.11239, eq. 4). A denoiser is any
function `(x_t, t) -> x_0 prediction`; a network that predicts the noise becomes one through
`x0_from_noise`.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""`(x_t of shape "B C", t of shape "B") -> prediction of x_0`, shape "B C"."""


def scaled_linear(
    steps: int, beta_start: float = 1e-4, beta_end: float = 0.02
) -> Float[Tensor, " K"]:
    """`alpha_bar` of the schedule whose square roots of beta are equally spaced.

    DDIM scheduler of Hugging Face diffusers ("scaled_linear"), the one of SEED (arXiv 2505.16798).
    """
    roots = torch.linspace(beta_start**0.5, beta_end**0.5, steps, dtype=torch.float64)
    return torch.cumprod(1.0 - roots**2, dim=0).float()


def cosine(steps: int, offset: float = 0.008, beta_max: float = 0.999) -> Float[Tensor, " K"]:
    """`alpha_bar` of the cosine schedule, each beta at most `beta_max`.

    Nichol and Dhariwal (arXiv 2102.09672), eq. 17.
    """
    grid = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    curve = torch.cos((grid + offset) / (1 + offset) * math.pi / 2) ** 2
    betas = (1.0 - curve[1:] / curve[:-1]).clamp(max=beta_max)
    return torch.cumprod(1.0 - betas, dim=0).float()


def add_noise(
    x_0: Float[Tensor, "B C"],
    alpha_bar_t: Float[Tensor, " B"],
    noise: Float[Tensor, "B C"],
) -> Float[Tensor, "B C"]:
    """`x_t`: each row of `x_0` at its own noise level. `alpha_bar_t = 1` leaves a row unchanged."""
    signal = alpha_bar_t[:, None]
    return signal.sqrt() * x_0 + (1.0 - signal).sqrt() * noise


def x0_from_noise(
    x_t: Float[Tensor, "B C"],
    alpha_bar_t: Float[Tensor, " B"],
    noise: Float[Tensor, "B C"],
) -> Float[Tensor, "B C"]:
    """The `x_0` from which `add_noise` made `x_t` with this `noise`; `alpha_bar_t` above 0."""
    signal = alpha_bar_t[:, None]
    return (x_t - (1.0 - signal).sqrt() * noise) / signal.sqrt()


def noise_from_x0(
    x_t: Float[Tensor, "B C"],
    alpha_bar_t: Float[Tensor, " B"],
    x_0: Float[Tensor, "B C"],
) -> Float[Tensor, "B C"]:
    """The noise that `add_noise` put on `x_0` to give `x_t`; `alpha_bar_t` below 1."""
    signal = alpha_bar_t[:, None]
    return (x_t - signal.sqrt() * x_0) / (1.0 - signal).sqrt()


def one_step(denoise: Denoiser, x_t: Float[Tensor, "B C"], t: int) -> Float[Tensor, "B C"]:
    """The denoiser's single prediction of `x_0` from `x_t`: the sampler of SEED."""
    return denoise(x_t, _times(x_t, t))


def ddim(
    denoise: Denoiser,
    x_t: Float[Tensor, "B C"],
    times: list[int],
    alpha_bar: Float[Tensor, " K"],
) -> Float[Tensor, "B C"]:
    """Deterministic sample of `x_0` from `x_t` at `times[0]`, one denoiser call at each of `times`.

    DDIM with eta = 0 (arXiv 2010.02502, eq. 12), for a denoiser that predicts `x_0`. The start may
    be any time, not only the last one (SDEdit, arXiv 2108.01073). The last step ends at
    `alpha_bar = 1`, so one time alone is `one_step`.
    """
    if not times:
        raise ValueError("ddim needs at least one time")
    for t, s in zip(times[:-1], times[1:], strict=True):
        x_0 = one_step(denoise, x_t, t)
        noise = noise_from_x0(x_t, alpha_bar[_times(x_t, t)], x_0)
        x_t = add_noise(x_0, alpha_bar[_times(x_t, s)], noise)
    return one_step(denoise, x_t, times[-1])


def ddim_times(start: int, steps: int) -> list[int]:
    """At most `steps` falling, equally spaced times from `start`; the step after the last is clean.

    There are only `start + 1` different times from `start` down to 0: asking for more gives these.
    """
    steps = min(steps, start + 1)
    return [start - (start + 1) * step // steps for step in range(steps)]


def timestep_embedding(
    t: Int[Tensor, " B"], width: int, max_period: float = 10_000.0
) -> Float[Tensor, "B W"]:
    """[cos | sin] of each time at `width / 2` frequencies from 1 down to `1 / max_period`.

    Transformer positions (arXiv 1706.03762) of the un-scaled integer time; `width` must be even.
    """
    half = width // 2
    frequencies = torch.exp(-math.log(max_period) * torch.arange(half, device=t.device) / half)
    angles = t[:, None].float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def _times(x: Tensor, t: int) -> Tensor:
    return torch.full((x.shape[0],), t, dtype=torch.long, device=x.device)
