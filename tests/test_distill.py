"""Distillation: targets, losses and measures of agreement."""

import numpy as np
import torch

from earwitness.encoders.cnn import CNNConfig
from earwitness.training.distill import Distillation, collate, correlation, top5_overlap, unpacked
from earwitness.training.scene_pool import FRAMES, PATCHES, TOKENS
from earwitness.training.teacher import N_EMBEDDING, N_SCORES

CLASSES = 13


def rows(count, seed=0):
    rng = np.random.default_rng(seed)
    classes = rng.random((count, TOKENS, CLASSES)) < 0.1
    return [
        {
            "log_mel": rng.normal(-40, 15, (64, FRAMES)).astype(np.float16),
            "scores": rng.random((PATCHES, N_SCORES)).astype(np.float16),
            "embedding": rng.random((PATCHES, N_EMBEDDING)).astype(np.float16),
            "classes": np.packbits(classes[i], axis=-1),
            "known": np.array(i % 2 == 0),
        }
        for i in range(count)
    ]


def small():
    torch.manual_seed(0)
    config = CNNConfig(stem=4, channels=(8, 8, 16), blocks=(0, 0, 0), dim=24, dilations=(1,))
    statistics = torch.stack([torch.full((N_EMBEDDING,), 0.5), torch.full((N_EMBEDDING,), 0.3)])
    return Distillation(config, CLASSES, statistics, gain_db=6.0)


def test_unpacked_inverts_numpy_packbits():
    bits = np.random.default_rng(0).random((3, 5, CLASSES)) < 0.5
    packed = torch.from_numpy(np.packbits(bits, axis=-1))
    assert np.array_equal(unpacked(packed, CLASSES).numpy(), bits)


def test_losses_are_those_of_a_loop():
    model, batch = small().eval(), collate(rows(2))
    losses = model(batch)
    h = model.encoder.encode(batch["log_mel"].float())
    patch = h[1, 3 * 4 : 3 * 4 + 6].mean(0)
    scores, embedding = model.by_patch(h)
    torch.testing.assert_close(scores[1, 4], model.scores(patch), atol=1e-5, rtol=1e-4)
    logits, target = scores.double(), batch["scores"].double()
    by_hand = (logits.clamp(min=0) - logits * target + torch.log1p((-logits.abs()).exp())).sum(-1)
    torch.testing.assert_close(losses["scores"].double(), by_hand.mean(), atol=1e-4, rtol=1e-5)
    wanted = (batch["embedding"].float() - 0.5) / 0.3
    torch.testing.assert_close(losses["embedding"], ((embedding - wanted) ** 2).mean())


def test_classes_of_unknown_scenes_do_not_count():
    model, items = small().eval(), rows(2)
    before = model(collate(items))["classes"]
    items[1]["classes"] = ~items[1]["classes"]
    assert torch.equal(model(collate(items))["classes"], before)
    items[0]["classes"] = ~items[0]["classes"]
    assert not torch.equal(model(collate(items))["classes"], before)


def test_agreement_measures_know_their_ends():
    a = torch.rand(4, 30, generator=torch.Generator().manual_seed(0))
    assert top5_overlap(a, a) == 1.0
    assert top5_overlap(a, -a) == 0.0
    assert abs(correlation(a, 2 * a + 1) - 1) < 1e-5
    assert abs(correlation(a, -a) + 1) < 1e-5
