"""Distillation: targets, losses and measures of agreement."""

import numpy as np
import torch
from torch.nn.functional import softplus

from earwitness.encoders.cnn import CNNConfig
from earwitness_lab.pocket.distill import Distillation, collate, correlation, top5_overlap, unpacked
from earwitness_lab.pocket.scene_pool import FRAMES, MAP_TOKENS, PATCHES, TOKENS
from earwitness_lab.pocket.teacher import MAP_SHAPE, N_EMBEDDING, N_SCORES

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
            "maps": rng.random((MAP_TOKENS, *MAP_SHAPE[1:])).astype(np.float16),
        }
        for i in range(count)
    ]


def small(hints=False):
    torch.manual_seed(0)
    config = CNNConfig(stem=4, channels=(8, 8, 16), blocks=(0, 0, 0), dim=24, dilations=(1,))
    statistics = torch.stack([torch.full((N_EMBEDDING,), 0.5), torch.full((N_EMBEDDING,), 0.3)])
    return Distillation(config, CLASSES, statistics, gain_db=6.0, hints=hints)


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


def test_hints_are_the_maps_and_a_positive_embedding():
    model, batch = small(hints=True).eval(), collate(rows(2))
    losses = model(batch)
    maps, h = model.encoder.encode_with_maps(batch["log_mel"].float())
    told = model.maps(maps[1, :, 7, 2])  # one position: frame 7, band 2
    assert told.shape == (512,)
    errors = torch.stack(
        [
            (softplus(model.maps(maps[b, :, n, m])) - batch["maps"][b, n, m].float()) ** 2
            for b in range(2)
            for n in range(MAP_TOKENS)
            for m in range(4)
        ]
    )
    wanted = errors.mean() / batch["maps"].float().var()
    torch.testing.assert_close(losses["maps"], wanted, atol=1e-5, rtol=1e-4)
    _, embedding = model.by_patch(h)
    frames = softplus(model.embedding(h[1, 12:18])).mean(0)
    torch.testing.assert_close(embedding[1, 4], (frames - 0.5) / 0.3, atol=1e-5, rtol=1e-4)


def test_with_hints_training_hears_scenes_as_they_are():
    batch = collate(rows(2))
    plain, hinted = small(), small(hints=True)
    before = batch["log_mel"].clone()
    seen = []
    for model in (plain, hinted):
        model.train()
        model.encoder.init_bn.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        model(batch)
    assert not torch.equal(seen[0], before.float())
    assert torch.equal(seen[1], before.float())


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
