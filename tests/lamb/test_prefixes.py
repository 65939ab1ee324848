"""The Linear and Q-Former prefixes: shapes, masks, and independence of the batch."""

import pytest
import torch

from earwitness.lamb.baselines import LinearPrefix, LinearPrefixConfig, QFormer, QFormerConfig

LENGTHS = [11, 4, 7, 1]


def prefix(kind):
    torch.manual_seed(0)
    if kind == "linear":
        return LinearPrefix(LinearPrefixConfig(stack=3), 12, 20).eval()
    return QFormer(QFormerConfig(n_queries=5, heads=3), 12, 20).eval()


def frames(padding=0.0):
    h = torch.randn(4, 11, 12, generator=torch.Generator().manual_seed(1))
    mask = torch.arange(11)[None, :] < torch.tensor(LENGTHS)[:, None]
    return h.masked_fill(~mask[..., None], padding), mask


@torch.inference_mode()
def test_linear_gives_one_token_for_every_stack_of_frames():
    z, mask = prefix("linear")(*frames())
    assert z.shape == (4, 4, 20)
    assert mask.sum(1).tolist() == [4, 2, 3, 1]


@torch.inference_mode()
def test_linear_is_layernorm_and_projection_of_neighbouring_frames():
    model, (h, mask) = prefix("linear"), frames()
    side_by_side = torch.cat([h[0, 3], h[0, 4], h[0, 5]])
    last = torch.cat([h[0, 9], h[0, 10], torch.zeros(12)])
    z, _ = model(h, mask)
    torch.testing.assert_close(z[0, 1], model.project(model.norm(side_by_side)))
    torch.testing.assert_close(z[0, 3], model.project(model.norm(last)))


@torch.inference_mode()
def test_q_former_gives_its_queries_whatever_the_length():
    z, mask = prefix("q_former")(*frames())
    assert z.shape == (4, 5, 20)
    assert mask.all()


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["linear", "q_former"])
def test_a_clip_gives_the_same_tokens_alone_as_in_a_batch(kind):
    model, (h, mask) = prefix(kind), frames()
    together, together_mask = model(h, mask)
    for row, n in enumerate(LENGTHS):
        alone, alone_mask = model(h[row : row + 1, :n], mask[row : row + 1, :n])
        real = together[row][together_mask[row]]
        torch.testing.assert_close(real, alone[0][alone_mask[0]], atol=1e-5, rtol=0)


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["linear", "q_former"])
def test_what_stands_in_padding_does_not_matter(kind):
    model = prefix(kind)
    clean, mask = model(*frames())
    dirty, _ = model(*frames(padding=1e3))
    torch.testing.assert_close(clean[mask], dirty[mask], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["linear", "q_former"])
def test_every_weight_gets_a_gradient(kind):
    model = prefix(kind)
    z, mask = model(*frames())
    z[mask].square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
