"""The Two-Stream Adapter against its formula by hand; padding and batches change nothing."""

import math

import pytest
import torch
from torch import nn

from earwitness.errors import ConfigError
from earwitness.lamb.two_stream import (
    MultiScaleConv,
    QueryAttention,
    TwoStreamAdapter,
    TwoStreamConfig,
    match_token_norm,
)


def adapter(dim=24, llm_dim=20, **changes) -> TwoStreamAdapter:
    torch.manual_seed(0)
    settings = {"n_semantic": 3, "n_temporal": 4, "n_global": 5, "heads": 2, **changes}
    return TwoStreamAdapter(TwoStreamConfig(**settings), dim, llm_dim).eval()


def frames(lengths, dim=24, padding=0.0, seed=1):
    """Random frames of clips of these lengths, with `padding` in the cells that are none."""
    generator = torch.Generator().manual_seed(seed)
    h = torch.full((len(lengths), max(lengths), dim), padding)
    for row, n in enumerate(lengths):
        h[row, :n] = torch.randn(n, dim, generator=generator)
    return h, torch.arange(max(lengths))[None, :] < torch.tensor(lengths)[:, None]


@torch.inference_mode()
def test_the_papers_sizes_give_the_papers_shapes():
    torch.manual_seed(0)
    paper = TwoStreamAdapter(TwoStreamConfig(), 768, 96).eval()
    h, mask = frames([64, 40], 768)
    h_s, h_t = paper.streams(h, mask)
    z_a, z_mask = paper(h, mask)
    assert (h_s.shape, h_t.shape, z_a.shape) == ((2, 8, 768), (2, 8, 768), (2, 32, 96))
    assert z_mask.shape == (2, 32)
    assert z_mask.all()


@torch.inference_mode()
def test_query_attention_equals_softmax_attention_worked_out_head_by_head():
    torch.manual_seed(0)
    heads, dim = 3, 12
    layer = QueryAttention(4, dim, heads, 0.0).eval()
    layer.queries.normal_()
    h, mask = frames([7, 5], dim)
    w_q, w_k, w_v = layer.attention.in_proj_weight.chunk(3)
    b_q, b_k, b_v = layer.attention.in_proj_bias.chunk(3)
    width = dim // heads
    for row, n in enumerate((7, 5)):
        found = torch.zeros(4, dim)
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            q = layer.queries @ w_q[part].T + b_q[part]
            k = h[row, :n] @ w_k[part].T + b_k[part]
            v = h[row, :n] @ w_v[part].T + b_v[part]
            chance = torch.exp(q @ k.T / math.sqrt(width))
            found[:, part] = chance / chance.sum(1, keepdim=True) @ v
        out = layer.attention.out_proj
        sum_ = found @ out.weight.T + out.bias + layer.queries
        mean, variance = sum_.mean(1, keepdim=True), sum_.var(1, keepdim=True, unbiased=False)
        expected = (sum_ - mean) / (variance + layer.norm.eps).sqrt()
        torch.testing.assert_close(layer(h, mask)[row], expected, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_adapter_is_the_two_streams_then_fusion_then_projection():
    model = adapter()
    h, mask = frames([9, 6])
    convolved = model.conv(h, mask)
    for row, n in enumerate((9, 6)):
        context, _ = model.gru(convolved[row : row + 1, :n])
        h_s = model.semantic(h[row : row + 1, :n])
        h_t = model.temporal(context)
        expected = model.project(model.fusion(torch.cat([h_s, h_t], dim=1)))
        torch.testing.assert_close(model(h, mask)[0][row], expected[0], atol=1e-5, rtol=0)


@torch.inference_mode()
def test_multi_scale_conv_equals_a_loop_over_taps():
    torch.manual_seed(0)
    conv = MultiScaleConv(6, (3, 5)).eval()
    h, mask = frames([8], 6)
    expected = torch.zeros(8, 6)
    for branch in conv.branches:
        reach = branch.kernel_size[0] // 2
        for n in range(8):
            expected[n] += branch.bias
            for tap in range(-reach, reach + 1):
                if 0 <= n + tap < 8:
                    expected[n] += branch.weight[:, :, tap + reach] @ h[0, n + tap]
    expected = conv.norm(h[0] + nn.functional.gelu(expected))
    torch.testing.assert_close(conv(h, mask)[0], expected, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_a_clip_gives_the_same_tokens_alone_as_in_a_batch():
    model = adapter()
    lengths = [12, 3, 7, 1]
    h, mask = frames(lengths)
    together, _ = model(h, mask)
    for row, n in enumerate(lengths):
        alone, _ = model(h[row : row + 1, :n], mask[row : row + 1, :n])
        torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=0)


@torch.inference_mode()
def test_what_stands_in_padding_does_not_matter():
    model = adapter()
    clean, _ = model(*frames([9, 4], padding=0.0))
    dirty, _ = model(*frames([9, 4], padding=1e4))
    torch.testing.assert_close(clean, dirty, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_temporal_stream_hears_order_and_semantic_stream_does_not():
    model = adapter()
    h, mask = frames([10])
    h_s, h_t = model.streams(h, mask)
    back_s, back_t = model.streams(h.flip(1), mask)
    torch.testing.assert_close(h_s, back_s, atol=1e-5, rtol=0)
    assert (h_t - back_t).abs().max() > 1e-2


def test_every_weight_gets_a_gradient():
    model = adapter(dropout=0.0).train()
    model(*frames([9, 4]))[0].square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@torch.inference_mode()
@pytest.mark.parametrize("token_norm", [0.05, 1.0, 30.0])
def test_match_token_norm_gives_tokens_of_that_norm(token_norm):
    model = adapter(dim=96, llm_dim=64)
    match_token_norm(model.project, token_norm)
    z_a, _ = model(*frames([20, 20, 20], 96))
    assert float(z_a.norm(dim=-1).mean()) == pytest.approx(token_norm, rel=0.1)


@pytest.mark.parametrize(
    ("dim", "changes", "words"),
    [(24, {"heads": 5}, "heads 5"), (24, {"kernels": (3, 4)}, "4"), (25, {"heads": 5}, "25")],
)
def test_sizes_that_do_not_fit_are_refused_in_a_sentence(dim, changes, words):
    with pytest.raises(ConfigError, match=words):
        adapter(dim=dim, **changes)
