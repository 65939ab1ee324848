"""The Cross-Modal Aligner's losses against double loops and the closed form between Gaussians."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from earwitness.lamb.aligner import (
    AlignerConfig,
    CrossModalAligner,
    caption_codes,
    cs_divergence,
    cs_token,
    info_nce,
    masked_mean,
    median_width,
)


def cloud(rows, dim=6, seed=0, scale=1.0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, dim, generator=generator, dtype=torch.float64) * scale + shift


def by_loops(x, y, sigma):
    """The estimator of CS-Aligner, term after term."""

    def mean_kernel(a, b):
        total = 0.0
        for p in a.tolist():
            for q in b.tolist():
                squared = sum((i - j) ** 2 for i, j in zip(p, q, strict=True))
                total += math.exp(-squared / (2 * sigma**2))
        return total / (len(a) * len(b))

    return (
        math.log(mean_kernel(x, x)) + math.log(mean_kernel(y, y)) - 2 * math.log(mean_kernel(x, y))
    )


@pytest.mark.parametrize(("m", "n"), [(5, 5), (7, 3), (1, 4), (1, 1)])
@pytest.mark.parametrize("sigma", [0.7, 1.5])
def test_divergence_equals_the_double_loop(m, n, sigma):
    x, y = cloud(m, seed=1), cloud(n, seed=2, shift=0.3)
    assert float(cs_divergence(x, y, sigma)) == pytest.approx(by_loops(x, y, sigma), abs=1e-12)


def test_median_divergence_equals_the_double_loop_at_the_median_width():
    x, y = cloud(6, seed=1), cloud(4, seed=2, shift=0.5)
    squared = torch.cdist(x, y).square().flatten()
    sigma = math.sqrt(float(squared.sort().values[(len(squared) - 1) // 2]) / 2)
    expected = by_loops(x, y, sigma)
    assert float(cs_divergence(x, y, "median")) == pytest.approx(expected, abs=1e-10)


def test_divergence_approaches_the_closed_form_between_gaussians():
    """Between N(a, s^2 I) and N(b, t^2 I) every mean kernel is itself a Gaussian density.

    Quasi-random samples: at 1024 of them an independent draw would still be off by a tenth.
    """
    dim, s, t, sigma, count = 2, 1.0, 1.4, 0.8, 1024
    a, b = torch.tensor([0.0, 0.0]), torch.tensor([1.0, -0.5])
    gap = float((a - b).square().sum())

    def log_product(variance, squared):
        variance = variance + sigma**2
        return -dim / 2 * math.log(variance) - squared / (2 * variance)

    expected = (
        log_product(2 * s**2, 0.0) + log_product(2 * t**2, 0.0) - 2 * log_product(s**2 + t**2, gap)
    )
    x, y = (
        torch.special.ndtri(
            torch.quasirandom.SobolEngine(dim, scramble=True, seed=seed).draw(count).double()
        )
        for seed in (1, 2)
    )
    assert float(cs_divergence(s * x + a, t * y + b, sigma)) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("sigma", [0.5, "median"])
def test_divergence_of_a_cloud_with_itself_is_zero(sigma):
    x = cloud(9)
    assert float(cs_divergence(x, x, sigma)) == pytest.approx(0.0, abs=1e-12)
    assert float(cs_divergence(x, x[torch.randperm(9)], sigma)) == pytest.approx(0.0, abs=1e-12)


@given(
    m=st.integers(1, 8),
    n=st.integers(1, 8),
    seed=st.integers(0, 1000),
    sigma=st.sampled_from([0.3, 2.0, "median"]),
)
@settings(max_examples=40, deadline=None)
def test_divergence_is_symmetric_and_never_negative(m, n, seed, sigma):
    x, y = cloud(m, seed=seed), cloud(n, seed=seed + 1, scale=2.0)
    there, back = float(cs_divergence(x, y, sigma)), float(cs_divergence(y, x, sigma))
    assert there == pytest.approx(back, abs=1e-10)
    assert there >= -1e-12


@pytest.mark.parametrize("sigma", [1.0, "median"])
def test_divergence_ignores_the_order_of_samples(sigma):
    x, y = cloud(7, seed=1), cloud(5, seed=2)
    torch.testing.assert_close(
        cs_divergence(x.flip(0), y[torch.randperm(5)], sigma), cs_divergence(x, y, sigma)
    )


def test_divergence_ignores_the_duplication_of_all_samples():
    x, y = cloud(7, seed=1), cloud(5, seed=2)
    torch.testing.assert_close(
        cs_divergence(x.repeat(2, 1), y.repeat(2, 1), 1.0), cs_divergence(x, y, 1.0)
    )


def test_divergence_ignores_where_the_origin_is():
    x, y = cloud(7, seed=1).float(), cloud(5, seed=2).float()
    near, far = cs_divergence(x, y, 1.0), cs_divergence(x + 300, y + 300, 1.0)
    torch.testing.assert_close(near, far, atol=1e-2, rtol=0)


@pytest.mark.parametrize("sigma", [0.01, 1.0, "median"])
@pytest.mark.parametrize("distance", [1e2, 1e4])
def test_divergence_and_gradient_are_finite_at_huge_distances(sigma, distance):
    x = cloud(6, 64, seed=1).float().requires_grad_()
    y = cloud(4, 64, seed=2, shift=distance / 8).float()
    loss = cs_divergence(x, y, sigma)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("sigma", [0.9, 2.5])
def test_divergence_passes_gradcheck(sigma):
    x, y = cloud(5, 3, seed=1).requires_grad_(), cloud(4, 3, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: cs_divergence(a, b, sigma), (x, y))


def test_descent_on_the_divergence_brings_the_clouds_together():
    x, y = torch.nn.Parameter(cloud(8, seed=1, shift=3.0)), cloud(5, seed=2)
    optimizer = torch.optim.Adam([x], lr=0.05)
    start = float(cs_divergence(x.detach(), y, "median"))
    for _ in range(200):
        optimizer.zero_grad()
        cs_divergence(x, y, "median").backward()
        optimizer.step()
    assert float(cs_divergence(x.detach(), y, "median")) < 0.1 * start
    assert float((x.detach().mean(0) - y.mean(0)).norm()) < 0.5


def test_token_loss_of_one_clip_is_the_divergence_of_its_tokens():
    x, y = cloud(6, seed=1), cloud(4, seed=2)
    everywhere = torch.ones(1, 6, dtype=torch.bool), torch.ones(1, 4, dtype=torch.bool)
    for sigma in (1.0, "median"):
        one = cs_token(x[None], everywhere[0], y[None], everywhere[1], sigma)
        torch.testing.assert_close(one, cs_divergence(x, y, sigma))


def test_token_loss_is_the_mean_over_clips_and_padding_counts_nowhere():
    x, y = cloud(12, seed=1).reshape(2, 6, 6), cloud(8, seed=2).reshape(2, 4, 6)
    a_mask = torch.arange(6)[None, :] < torch.tensor([6, 3])[:, None]
    t_mask = torch.arange(4)[None, :] < torch.tensor([2, 4])[:, None]
    expected = (by_loops(x[0], y[0, :2], 1.3) + by_loops(x[1, :3], y[1], 1.3)) / 2
    for padding in (0.0, 77.0):
        found = cs_token(
            x.masked_fill(~a_mask[..., None], padding),
            a_mask,
            y.masked_fill(~t_mask[..., None], padding),
            t_mask,
            1.3,
        )
        assert float(found) == pytest.approx(expected, abs=1e-10)


def test_median_width_ignores_padding_and_has_a_floor():
    distances = torch.tensor([[[1.0, 4.0, 9.0, 1e9]]])
    keep = torch.tensor([[[True, True, True, False]]])
    assert float(median_width(distances, keep)) == 2.0
    assert float(median_width(distances * 0, keep)) == pytest.approx(1e-6)
    assert float(median_width(distances, keep & False)) == 1.0


def test_median_divergence_stays_small_while_the_audio_tokens_lie_on_one_spot():
    """A median over all pairs would shrink to the spot, and the loss would start above 1000."""
    spot = torch.ones(32, 16) + 1e-3 * cloud(32, seed=1)[:, :1]
    text = cloud(8, seed=2).repeat(1, 16)[:, :16]
    assert 0 < float(cs_divergence(spot.double(), text.double(), "median")) < 10


def test_info_nce_of_one_pair_is_zero():
    assert float(info_nce(cloud(1), cloud(1, seed=1), 14.0)) == 0.0


def test_info_nce_of_equal_similarities_is_log_b():
    same = cloud(1).expand(8, -1)
    assert float(info_nce(same, same, 14.0)) == pytest.approx(math.log(8))


def test_info_nce_equals_its_double_loop():
    a, t, scale = cloud(5, seed=1), cloud(5, seed=2), 3.0
    cosine = [[float(torch.dot(p, q) / (p.norm() * q.norm())) * scale for q in t] for p in a]
    total = 0.0
    for i in range(5):
        row = sum(math.exp(cosine[i][j]) for j in range(5))
        column = sum(math.exp(cosine[j][i]) for j in range(5))
        total -= 2 * cosine[i][i] - math.log(row) - math.log(column)
    assert float(info_nce(a, t, scale)) == pytest.approx(total / 10)


def test_info_nce_does_not_push_captions_of_one_recording_apart():
    a, t = cloud(4, seed=1), cloud(4, seed=2)
    clip = torch.tensor([7, 3, 7, 5])
    rows = [[0, 1, 3], [0, 1, 2, 3], [1, 2, 3], [0, 1, 2, 3]]
    cosine = torch.nn.functional.cosine_similarity(a[:, None], t[None], dim=-1) * 5.0
    expected = 0.0
    for i, allowed in enumerate(rows):
        expected -= float(cosine[i, i] - cosine[i, allowed].logsumexp(0)) / 8
        expected -= float(cosine[i, i] - cosine[allowed, i].logsumexp(0)) / 8
    assert float(info_nce(a, t, 5.0, clip)) == pytest.approx(expected)


def test_masked_mean_is_the_mean_of_real_tokens():
    z = cloud(8).reshape(2, 4, 6)
    mask = torch.tensor([[True, True, False, False], [True, False, True, True]])
    expected = torch.stack([z[0, :2].mean(0), z[1, [0, 2, 3]].mean(0)])
    torch.testing.assert_close(masked_mean(z, mask), expected)


def batch(seed=0):
    z_a, z_t = cloud(12, seed=seed).reshape(3, 4, 6), cloud(15, seed=seed + 1).reshape(3, 5, 6)
    t_mask = torch.arange(5)[None, :] < torch.tensor([5, 2, 4])[:, None]
    a_mask = torch.ones(3, 4, dtype=torch.bool)
    return z_a.float(), a_mask, z_t.float(), t_mask, torch.arange(3)


def test_aligner_returns_the_three_losses_of_the_pooled_and_the_token_clouds():
    z_a, a_mask, z_t, t_mask, clip = batch()
    found = CrossModalAligner(AlignerConfig())(z_a, a_mask, z_t, t_mask, clip)
    pooled_t = torch.stack([z_t[0].mean(0), z_t[1, :2].mean(0), z_t[2, :4].mean(0)])
    torch.testing.assert_close(found["cs_global"], cs_divergence(z_a.mean(1), pooled_t, "median"))
    torch.testing.assert_close(found["cs_token"], cs_token(z_a, a_mask, z_t, t_mask, "median"))
    torch.testing.assert_close(found["infonce"], info_nce(z_a.mean(1), pooled_t, 1 / 0.07))


def test_global_loss_is_zero_where_the_pooled_sets_are_equal():
    z_a, a_mask, _, _, clip = batch()
    z_t = z_a.flip(0).flip(1)
    losses = CrossModalAligner(AlignerConfig())(z_a, a_mask, z_t, a_mask, clip)
    assert float(losses["cs_global"]) == pytest.approx(0.0, abs=1e-5)


def test_normalized_divergence_does_not_see_norms():
    z_a, a_mask, z_t, t_mask, clip = batch()
    aligner = CrossModalAligner(AlignerConfig(l2_normalize=True, sigma=0.7))
    plain = aligner(z_a, a_mask, z_t, t_mask, clip)
    scaled = aligner(40 * z_a, a_mask, z_t, t_mask, clip)
    for name in plain:
        torch.testing.assert_close(plain[name], scaled[name], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("log_scale", "scale"), [(-3.0, 1.0), (9.0, 100.0), (2.0, math.exp(2.0))])
def test_infonce_scale_stays_between_1_and_100(log_scale, scale):
    z_a, a_mask, z_t, t_mask, clip = batch()
    aligner = CrossModalAligner(AlignerConfig())
    aligner.log_scale.data.fill_(log_scale)
    found = aligner(z_a, a_mask, z_t, t_mask, clip)["infonce"]
    torch.testing.assert_close(
        found, info_nce(masked_mean(z_a, a_mask), masked_mean(z_t, t_mask), scale)
    )


def test_text_stays_a_fixed_target_and_audio_and_temperature_learn():
    z_a, a_mask, z_t, t_mask, clip = batch()
    aligner = CrossModalAligner(AlignerConfig())
    z_a.requires_grad_()
    sum(aligner(z_a, a_mask, z_t, t_mask, clip).values()).backward()
    assert z_a.grad.abs().sum() > 0
    assert aligner.log_scale.grad.abs() > 0


def test_losses_are_computed_in_float32_under_autocast():
    z_a, a_mask, z_t, t_mask, clip = batch()
    aligner = CrossModalAligner(AlignerConfig())
    full = aligner(z_a, a_mask, z_t, t_mask, clip)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = aligner(z_a, a_mask, z_t, t_mask, clip)
    assert all(torch.equal(full[name], mixed[name]) for name in full)


def test_a_caption_without_tokens_is_left_out_and_the_rest_counts_as_if_it_were_not_there():
    """`!!!` has no words: its empty set of tokens once made the loss, and all weights, NaN."""
    z_a, a_mask, z_t, t_mask, clip = batch()
    t_mask = t_mask & torch.tensor([True, False, True])[:, None]
    z_a.requires_grad_()
    aligner = CrossModalAligner(AlignerConfig())
    found = aligner(z_a, a_mask, z_t, t_mask, clip)
    sum(found.values()).backward()
    kept = [0, 2]
    rest = aligner(z_a[kept], a_mask[kept], z_t[kept], t_mask[kept], clip[kept])
    for name in rest:
        torch.testing.assert_close(found[name], rest[name])
    assert torch.isfinite(z_a.grad).all()
    assert z_a.grad[1].abs().sum() == 0
    assert z_a.grad[0].abs().sum() > 0


def test_a_batch_of_captions_without_tokens_has_losses_of_zero():
    z_a, a_mask, z_t, t_mask, clip = batch()
    aligner = CrossModalAligner(AlignerConfig())
    losses = aligner(z_a.requires_grad_(), a_mask, z_t, t_mask & False, clip)
    assert {name: float(loss.detach()) for name, loss in losses.items()} == {
        "cs_global": 0.0,
        "cs_token": 0.0,
        "infonce": 0.0,
    }
    sum(losses.values()).backward()
    assert torch.isfinite(aligner.log_scale.grad)


def test_equal_captions_of_other_clips_are_not_negatives():
    """Clips 0 and 2 have one caption: each is scored against clip 1 alone."""
    z_a, a_mask, z_t, t_mask, clip = batch()
    codes = caption_codes(["a dog barks", "rain falls", "a dog barks"], torch.device("cpu"))
    aligner = CrossModalAligner(AlignerConfig())
    found = float(aligner(z_a, a_mask, z_t, t_mask, clip, codes)["infonce"].detach())
    without = aligner(z_a, a_mask, z_t, t_mask, clip)["infonce"].detach()
    a, t = masked_mean(z_a, a_mask), masked_mean(z_t, t_mask)
    cosine = torch.nn.functional.cosine_similarity(a[:, None], t[None], dim=-1) / 0.07
    expected = 0.0
    for i, allowed in enumerate([[0, 1], [0, 1, 2], [1, 2]]):
        expected -= float(cosine[i, i] - cosine[i, allowed].logsumexp(0)) / 6
        expected -= float(cosine[i, i] - cosine[allowed, i].logsumexp(0)) / 6
    assert found == pytest.approx(expected, abs=1e-5)
    assert found != pytest.approx(float(without))


def test_rare_words_weigh_more_in_the_token_loss_where_that_is_asked_for():
    """The weighted kernel means, written as double loops."""
    z_a, a_mask, z_t, t_mask, clip = (part[:1] for part in batch())
    ids = torch.tensor([[0, 1, 1, 2, 3]])
    aligner = CrossModalAligner(AlignerConfig(sigma=1.3, word_weights="inverse_frequency"))
    aligner.count_words(torch.tensor([100, 10, 1, 0]))
    found = float(aligner(z_a, a_mask, z_t, t_mask, clip, clip, ids)["cs_token"])
    weights = [0.01, 0.1, 0.1, 1.0, 1.0]

    def mean_kernel(x, u, y, v):
        total = 0.0
        for p, a in zip(x.tolist(), u, strict=True):
            for q, b in zip(y.tolist(), v, strict=True):
                squared = sum((i - j) ** 2 for i, j in zip(p, q, strict=True))
                total += a * b * math.exp(-squared / (2 * 1.3**2))
        return math.log(total / (sum(u) * sum(v)))

    x, y, u = z_a[0], z_t[0], [1.0] * 4
    expected = (
        mean_kernel(x, u, x, u) + mean_kernel(y, weights, y, weights)
        - 2 * mean_kernel(x, u, y, weights)
    )  # fmt: skip
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("log_scale", [-3.0, 9.0])
def test_a_temperature_beyond_its_bounds_can_come_back(log_scale):
    z_a, a_mask, z_t, t_mask, clip = batch()
    aligner = CrossModalAligner(AlignerConfig())
    aligner.log_scale.data.fill_(log_scale)
    aligner(z_a, a_mask, z_t, t_mask, clip)["infonce"].backward()
    assert float(aligner.log_scale.grad.abs()) > 0


def test_padding_moves_no_cloud_away_from_the_origin_of_its_distances():
    """Distances keep their digits by centering on the caption's real tokens, not on its padding."""
    z_a, a_mask, z_t, t_mask, _ = batch()
    far = z_t.masked_fill(~t_mask[..., None], 3e4)
    near = cs_token(z_a, a_mask, z_t, t_mask, 1.3)
    torch.testing.assert_close(cs_token(z_a, a_mask, far, t_mask, 1.3), near, atol=1e-5, rtol=1e-5)
