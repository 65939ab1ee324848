"""The Token Guide against brute force over the vocabulary."""

import pytest
import torch

from earwitness.lamb.token_guide import GuideProcessor, TokenGuide, TokenGuideConfig, guide_scores

METRICS = ["l2", "l2_distance", "l1", "cosine"]
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
            elif config.metric == "l2_distance":
                near = torch.stack([-((z - e) ** 2).sum().sqrt() for z in tokens])
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
    guide = TokenGuide(TokenGuideConfig(aggregation=aggregation), 8)
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
    bias = TokenGuide(TokenGuideConfig(beta=0.5), 8)(z_a, mask, table, special)
    assert (bias[:, special] == 0).all()
    torch.testing.assert_close(bias[:, ~special].mean(1), torch.zeros(2), atol=1e-5, rtol=0)


def test_centring_changes_no_choice_between_ordinary_tokens():
    z_a, mask, table, special = parts()
    guide = TokenGuide(TokenGuideConfig(beta=0.5), 8)
    logits = torch.randn(2, 30, generator=torch.Generator().manual_seed(1))
    guided = (logits + guide(z_a, mask, table, special))[:, ~special].log_softmax(1)
    raw = logits + 0.5 * brute_force(z_a, mask, table, guide.config)
    torch.testing.assert_close(guided, raw[:, ~special].log_softmax(1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("metric", METRICS)
def test_beta_zero_gives_no_bias(metric):
    guide = TokenGuide(TokenGuideConfig(metric=metric, beta=0.0), 8)
    assert (guide(*parts()) == 0).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_gradient_reaches_audio_and_beta_and_is_right(metric, aggregation):
    z_a, mask, table, special = parts()
    guide = TokenGuide(TokenGuideConfig(metric=metric, aggregation=aggregation), 8)
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
        guide = TokenGuide(TokenGuideConfig(metric=metric, aggregation=aggregation), 8)
        assert torch.isfinite(guide(*parts(scale))).all()


def test_bias_is_computed_in_float32_under_autocast():
    guide = TokenGuide(TokenGuideConfig(), 8)
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


def centered(**changes):
    return TokenGuide(TokenGuideConfig(form="centered", **changes), 8)


def test_the_centered_guide_holds_only_what_differs_between_clips():
    """Brute force: distances to each row, minus those of the mean clip, are the same up to a
    constant per clip; a part that all clips share changes nothing.
    """
    z_a, mask, table, special = parts()
    guide = centered(beta=0.5)
    guide.train()
    guide(z_a, mask, table, special)
    guide.eval()
    found = guide(z_a, mask, table, special)
    means = torch.stack([z_a[b][mask[b]].mean(0) for b in range(2)])
    for b in range(2):
        near = -((means[b] - table) ** 2).sum(1) + ((means.mean(0) - table) ** 2).sum(1)
        expected = 0.5 * (near - near[~special].mean()).masked_fill(special, 0.0)
        torch.testing.assert_close(found[b], expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.sum(0), torch.zeros(30), atol=1e-4, rtol=0)
    shifted = centered(beta=0.5)
    shifted.train()
    shifted(z_a + 7.0, mask, table, special)
    shifted.eval()
    torch.testing.assert_close(
        shifted(z_a + 7.0, mask, table, special), found, atol=1e-3, rtol=1e-3
    )


def test_the_running_mean_is_a_mean_at_first_and_stands_still_outside_training():
    z_a, mask, table, special = parts()
    guide = centered()
    batches = [z_a, z_a + 3.0, z_a - 1.0]
    guide.train()
    for batch in batches:
        guide(batch, mask, table, special)
    means = [torch.stack([b[0][mask[0]].mean(0), b[1][mask[1]].mean(0)]).mean(0) for b in batches]
    torch.testing.assert_close(guide.mean_token, torch.stack(means).mean(0))
    guide.eval()
    guide(z_a + 50.0, mask, table, special)
    torch.testing.assert_close(guide.mean_token, torch.stack(means).mean(0))
    for _ in range(200):
        guide.train()
        guide(z_a + 9.0, mask, table, special)
    assert int(guide.batches) == 203
    torch.testing.assert_close(guide.mean_token, means[0] + 9.0, atol=2.0, rtol=0)


def test_the_running_mean_is_part_of_a_saved_model_and_only_of_a_centered_one():
    assert centered().state_dict().keys() == {"beta", "mean_token", "batches"}
    assert TokenGuide(TokenGuideConfig(), 8).state_dict().keys() == {"beta"}


def test_the_centered_form_names_the_metric_it_is_defined_for():
    with pytest.raises(ValueError, match="for metric 'l2' with aggregation 'mean', got 'l1'"):
        TokenGuideConfig(form="centered", metric="l1")
