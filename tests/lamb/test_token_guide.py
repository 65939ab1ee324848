"""The Token Guide against brute force over the vocabulary."""

import pytest
import torch

from earwitness.lamb.token_guide import GuideProcessor, TokenGuide, TokenGuideConfig, guide_scores

METRICS = ["l2", "l1", "cosine"]
AGGREGATIONS = ["mean", "max", "logsumexp"]


def parts(scale=1.0):
    generator = torch.Generator().manual_seed(0)
    z_a = torch.randn(2, 5, 8, generator=generator) * scale
    table = torch.randn(30, 8, generator=generator)
    mask = torch.arange(5)[None, :] < torch.tensor([5, 3])[:, None]
    special = torch.zeros(30, dtype=torch.bool)
    special[[0, 1, 29]] = True
    return z_a, mask, table, special


def brute_force(z_a, mask, table, config):
    """Each audio token against each vocabulary row, one pair after the other."""
    scores = torch.zeros(len(z_a), len(table), dtype=torch.float64)
    for b in range(len(z_a)):
        tokens = z_a[b][mask[b]].double()
        for v, e in enumerate(table.double()):
            if config.metric == "l2":
                near = torch.stack([-((z - e) ** 2).sum() for z in tokens])
            elif config.metric == "l1":
                near = torch.stack([-(z - e).abs().sum() for z in tokens])
            else:
                near = torch.stack([z @ e / (z.norm() * e.norm()) for z in tokens])
            if config.aggregation == "mean":
                scores[b, v] = near.mean()
            elif config.aggregation == "max":
                scores[b, v] = near.max()
            else:
                scores[b, v] = near.exp().mean().log()
    return scores.float()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_scores_equal_brute_force_over_the_vocabulary(metric, aggregation):
    z_a, mask, table, _ = parts()
    config = TokenGuideConfig(metric=metric, aggregation=aggregation)
    torch.testing.assert_close(
        guide_scores(z_a, mask, table, config),
        brute_force(z_a, mask, table, config),
        atol=1e-4,
        rtol=1e-5,
    )


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_padding_of_audio_tokens_changes_no_score(metric, aggregation):
    z_a, mask, table, _ = parts()
    config = TokenGuideConfig(metric=metric, aggregation=aggregation)
    dirty = z_a.masked_fill(~mask[..., None], 55.0)
    torch.testing.assert_close(
        guide_scores(dirty, mask, table, config), guide_scores(z_a, mask, table, config)
    )


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_audio_tokens_that_all_equal_a_row_put_the_maximum_there(aggregation):
    _, _, table, special = parts()
    z_a = table[[7, 12]][:, None, :].expand(2, 4, 8)
    guide = TokenGuide(TokenGuideConfig(aggregation=aggregation))
    bias = guide(z_a, torch.ones(2, 4, dtype=torch.bool), table, special)
    assert bias.argmax(1).tolist() == [7, 12]


def test_max_finds_the_row_of_a_single_audio_token():
    _, _, table, _ = parts()
    z_a = torch.stack([table[[7, 12, 20]]])
    scores = guide_scores(
        z_a, torch.ones(1, 3, dtype=torch.bool), table, TokenGuideConfig(aggregation="max")
    )
    assert set(scores[0].topk(3).indices.tolist()) == {7, 12, 20}


def test_special_tokens_stand_at_the_mean_of_ordinary_ones():
    z_a, mask, table, special = parts()
    bias = TokenGuide(TokenGuideConfig(beta=0.5))(z_a, mask, table, special)
    assert (bias[:, special] == 0).all()
    torch.testing.assert_close(bias[:, ~special].mean(1), torch.zeros(2), atol=1e-5, rtol=0)


def test_centring_changes_no_choice_between_ordinary_tokens():
    z_a, mask, table, special = parts()
    guide = TokenGuide(TokenGuideConfig(beta=0.5))
    logits = torch.randn(2, 30, generator=torch.Generator().manual_seed(1))
    guided = (logits + guide(z_a, mask, table, special))[:, ~special].log_softmax(1)
    raw = logits + 0.5 * brute_force(z_a, mask, table, guide.config)
    torch.testing.assert_close(guided, raw[:, ~special].log_softmax(1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("metric", METRICS)
def test_beta_zero_gives_no_bias(metric):
    guide = TokenGuide(TokenGuideConfig(metric=metric, beta=0.0))
    assert (guide(*parts()) == 0).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_gradient_reaches_audio_and_beta_and_is_right(metric, aggregation):
    z_a, mask, table, special = parts()
    guide = TokenGuide(TokenGuideConfig(metric=metric, aggregation=aggregation))
    config = guide.config
    z_a = z_a.double().requires_grad_()
    guide(z_a, mask, table, special).square().sum().backward()
    assert z_a.grad.abs().sum() > 0
    assert guide.beta.grad.abs() > 0
    assert torch.autograd.gradcheck(
        lambda z: guide_scores(z, mask, table[:6].double(), config), (z_a,)
    )


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_bias_is_finite_for_tokens_far_from_the_vocabulary(metric, scale):
    for aggregation in AGGREGATIONS:
        guide = TokenGuide(TokenGuideConfig(metric=metric, aggregation=aggregation))
        assert torch.isfinite(guide(*parts(scale))).all()


def test_bias_is_computed_in_float32_under_autocast():
    guide = TokenGuide(TokenGuideConfig())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = guide(*parts())
    assert torch.equal(mixed, guide(*parts()))


def test_processor_gives_each_clip_and_each_of_its_beams_its_own_bias():
    bias = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 2.0]])
    scores = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    found = GuideProcessor(bias)(torch.zeros(6, 0, dtype=torch.long), scores)
    for row in range(6):
        expected = (scores[row] + bias[row // 3]).log_softmax(0)
        torch.testing.assert_close(found[row], expected)


def test_processor_means_the_same_on_logits_and_on_log_probabilities():
    bias, logits = torch.randn(2, 9), torch.randn(2, 9)
    processor, none = GuideProcessor(bias), torch.zeros(2, 0, dtype=torch.long)
    torch.testing.assert_close(
        processor(none, logits), processor(none, logits.log_softmax(1)), atol=1e-6, rtol=1e-5
    )
