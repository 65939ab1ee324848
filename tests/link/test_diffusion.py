"""Schedules, forward process and samplers against closed forms."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from earwitness.link.diffusion import (
    add_noise,
    cosine,
    ddim,
    ddim_times,
    noise_from_x0,
    one_step,
    scaled_linear,
    timestep_embedding,
    x0_from_noise,
)

K = 1000


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class GaussianData:
    """Data x_0 ~ N(mu, diag(s^2)) with its exact denoiser E[x_0 | x_t]."""

    def __init__(self, alpha_bar: Tensor) -> None:
        self.alpha_bar = alpha_bar.double()
        self.mu = randn(6, seed=1).double()
        self.s = torch.tensor([0.2, 0.5, 0.8, 1.0, 1.5, 2.0], dtype=torch.float64)

    def marginal_std(self, t: int) -> Tensor:
        a = self.alpha_bar[t]
        return (a * self.s**2 + 1 - a).sqrt()

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        a = self.alpha_bar[t][:, None]
        gain = self.s**2 * a.sqrt() / (a * self.s**2 + 1 - a)
        return self.mu + gain * (x_t - a.sqrt() * self.mu)

    def flow_end(self, x_t: Tensor, t: int) -> Tensor:
        """Where the exact probability-flow ODE carries x_t: the same quantile at time 0."""
        z = (x_t - self.alpha_bar[t].sqrt() * self.mu) / self.marginal_std(t)
        return self.mu + self.s * z


@pytest.mark.parametrize(
    ("t", "signal", "noise"),
    [(50, 0.9954, 0.0957), (200, 0.942, 0.336), (500, 0.576, 0.818), (999, 0.027, 1.000)],
)
def test_scaled_linear_has_the_published_levels(t: int, signal: float, noise: float) -> None:
    abar = scaled_linear(K)[t]
    assert abar.sqrt().item() == pytest.approx(signal, abs=6e-4)
    assert (1 - abar).sqrt().item() == pytest.approx(noise, abs=6e-4)


def test_scaled_linear_is_the_cumulative_product_of_its_betas() -> None:
    product, abar = 1.0, scaled_linear(10, 1e-4, 0.02)
    for step in range(10):
        root = 1e-4**0.5 + (0.02**0.5 - 1e-4**0.5) * step / 9
        product *= 1 - root**2
        assert abar[step].item() == pytest.approx(product, rel=1e-6)


def test_cosine_follows_its_curve_until_the_betas_are_clipped() -> None:
    f = (
        torch.cos((torch.arange(K + 1, dtype=torch.float64) / K + 0.008) / 1.008 * torch.pi / 2)
        ** 2
    )
    torch.testing.assert_close(cosine(K)[:990].double(), (f[1:] / f[0])[:990], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("schedule", [scaled_linear, cosine])
def test_schedule_falls_strictly_between_one_and_zero(schedule) -> None:
    abar = schedule(K)
    assert bool((abar[1:] < abar[:-1]).all())
    assert 0 < abar[-1] < abar[0] < 1


def test_add_noise_at_alpha_bar_one_is_the_identity() -> None:
    x, noise = randn(4, 8), randn(4, 8, seed=1)
    assert torch.equal(add_noise(x, torch.ones(4), noise), x)


def test_add_noise_at_alpha_bar_zero_is_the_noise() -> None:
    x, noise = randn(4, 8), randn(4, 8, seed=1)
    assert torch.equal(add_noise(x, torch.zeros(4), noise), noise)


def test_add_noise_gives_each_row_its_own_level() -> None:
    x, noise, abar = randn(3, 5), randn(3, 5, seed=1), torch.tensor([0.9, 0.5, 0.1])
    rows = [
        a.item() ** 0.5 * r + (1 - a.item()) ** 0.5 * n
        for a, r, n in zip(abar, x, noise, strict=True)
    ]
    torch.testing.assert_close(add_noise(x, abar, noise), torch.stack(rows))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, K - 1), st.integers(0, 1000))
def test_x0_and_noise_are_recovered_from_each_other(t: int, seed: int) -> None:
    abar = scaled_linear(K)[t].expand(3).double()
    x, noise = randn(3, 8, seed=seed).double(), randn(3, 8, seed=seed + 1).double()
    x_t = add_noise(x, abar, noise)
    torch.testing.assert_close(x0_from_noise(x_t, abar, noise), x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(noise_from_x0(x_t, abar, x), noise, rtol=1e-9, atol=1e-9)


def test_one_step_of_the_exact_denoiser_is_the_posterior_mean() -> None:
    """Against least squares on samples: the posterior mean is the best affine predictor."""
    t, n = 400, 200_000
    data = GaussianData(scaled_linear(K))
    x_0 = data.mu + data.s * randn(n, 6, seed=3).double()
    x_t = add_noise(x_0, data.alpha_bar[t].expand(n), randn(n, 6, seed=4).double())
    centred = x_t - x_t.mean(dim=0)
    slope = (centred * x_0).mean(dim=0) / (centred**2).mean(dim=0)
    fitted = x_0.mean(dim=0) + slope * centred[:50]
    torch.testing.assert_close(one_step(data.denoise, x_t[:50], t), fitted, rtol=0, atol=0.03)


@pytest.mark.parametrize("start", [200, 600, 999])
def test_ddim_with_the_exact_denoiser_follows_the_probability_flow(start: int) -> None:
    data = GaussianData(scaled_linear(K))
    z = randn(32, 6, seed=5).double()
    x_t = data.alpha_bar[start].sqrt() * data.mu + data.marginal_std(start) * z
    end = ddim(data.denoise, x_t, ddim_times(start, start + 1), data.alpha_bar)
    torch.testing.assert_close(end, data.flow_end(x_t, start), rtol=0, atol=0.02)


def test_ddim_converges_with_the_number_of_steps() -> None:
    data = GaussianData(scaled_linear(K))
    x_t = data.marginal_std(600) * randn(32, 6, seed=5).double()
    errors = [
        (ddim(data.denoise, x_t, ddim_times(600, steps), data.alpha_bar) - data.flow_end(x_t, 600))
        .abs()
        .max()
        .item()
        for steps in (1, 5, 50, 600)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 20


def test_ddim_of_one_time_is_one_step() -> None:
    data = GaussianData(scaled_linear(K))
    x_t = randn(4, 6).double()
    got = ddim(data.denoise, x_t, [300], data.alpha_bar)
    assert torch.equal(got, one_step(data.denoise, x_t, 300))


def test_ddim_with_a_perfect_denoiser_returns_the_clean_rows() -> None:
    alpha_bar, x_0 = scaled_linear(K), randn(4, 6)
    x_t = add_noise(x_0, alpha_bar[600].expand(4), randn(4, 6, seed=1))
    end = ddim(lambda x, t: x_0, x_t, ddim_times(600, 5), alpha_bar)
    torch.testing.assert_close(end, x_0)


def test_ddim_without_times_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        ddim(lambda x, t: x, randn(1, 2), [], scaled_linear(10))


@given(st.integers(0, 999), st.integers(1, 60))
def test_ddim_times_fall_from_the_start_without_repeats(start: int, steps: int) -> None:
    times = ddim_times(start, steps)
    assert times[0] == start
    assert len(times) == min(steps, start + 1)
    assert all(a > b >= 0 for a, b in zip(times, times[1:], strict=False))


def test_timestep_embedding_is_cos_then_sin_of_falling_frequencies() -> None:
    e = timestep_embedding(torch.tensor([0, 7]), 8)
    f = torch.tensor([1.0, 0.1, 0.01, 0.001])
    torch.testing.assert_close(e[0], torch.tensor([1.0] * 4 + [0.0] * 4))
    torch.testing.assert_close(e[1], torch.cat([(7 * f).cos(), (7 * f).sin()]))
