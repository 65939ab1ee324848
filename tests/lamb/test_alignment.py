"""Alignment against loops over all pairs of clips, and its two controls."""

import pytest
import torch
from torch.nn.functional import cosine_similarity

from earwitness.lamb.alignment import alignment, mean_caption_cosine


def sides(count=5, shared=3.0):
    """Two clouds with a large common part, as mean caption tokens have one."""
    generator = torch.Generator().manual_seed(0)
    common = shared * torch.randn(1, 8, generator=generator)
    text = common + torch.randn(count, 8, generator=generator)
    audio = text + 0.5 * torch.randn(count, 8, generator=generator)
    return audio, text


def test_numbers_equal_loops_over_the_clips():
    audio, text = sides()
    found = alignment(audio, text)
    own, others, centered = [], [], []
    for i in range(5):
        cosines = [float(cosine_similarity(audio[i], text[j], dim=0)) for j in range(5)]
        own.append(cosines[i])
        others.append(sum(c for j, c in enumerate(cosines) if j != i) / 4)
        a, t = audio[i] - audio.mean(0), text[i] - text.mean(0)
        centered.append(float(cosine_similarity(a, t, dim=0)))
    assert float(found["cosine"]) == pytest.approx(sum(own) / 5, abs=1e-5)
    assert float(found["margin"]) == pytest.approx((sum(own) - sum(others)) / 5, abs=1e-5)
    assert float(found["centered"]) == pytest.approx(sum(centered) / 5, abs=1e-5)
    assert float(found["l2"]) == pytest.approx(float((audio - text).norm(dim=1).mean()))


def test_the_mean_caption_has_a_high_cosine_and_no_margin():
    """Why LAMB's cosine alone shows nothing: a constant reaches it."""
    _, text = sides(40)
    constant = text.mean(0, keepdim=True).expand_as(text)
    found = alignment(constant, text)
    assert float(found["cosine"]) > 0.8
    assert float(found["cosine"]) == pytest.approx(float(mean_caption_cosine(text)), abs=1e-6)
    assert float(found["margin"]) == pytest.approx(0.0, abs=1e-6)


def test_a_single_clip_has_no_others_to_compare_with():
    audio, text = sides(1)
    assert alignment(audio, text).keys() == {"l2", "cosine"}
