"""The guide's effect on content words, against losses of captions that are computed one by one."""

import numpy as np
import pytest
import torch
from builders import SENTENCES, noise, tiny_captioner

from earwitness_lab.pocket.guide_effect import content_losses, difference, guide_shape

CLIPS = [noise(0.5, seed) for seed in range(3)]
REFERENCES = [[SENTENCES[0]], [SENTENCES[1], SENTENCES[2]], [SENTENCES[3]]]


def tokens_of(captioner):
    return [captioner.audio_tokens(captioner.encode([clip])) for clip in CLIPS]


@pytest.fixture(scope="module")
def captioner():
    made = tiny_captioner()
    made.guide.beta.data.fill_(2.0)
    return made


def by_hand(captioner, clip, guided_by):
    """Mean loss of the content words of one clip's captions, under the guide of another."""
    z = captioner.audio_tokens(captioner.encode([CLIPS[clip]]))
    losses = []
    for text in REFERENCES[clip]:
        texts = captioner.decoder.tokenize([text])
        logits = captioner.decoder(*z, texts)[0]
        if guided_by is not None:
            other = captioner.audio_tokens(captioner.encode([CLIPS[guided_by]]))
            logits = logits + captioner.guide_bias(other)[0]
        for step, token in enumerate(texts.ids[0].tolist()):
            if captioner.decoder.content_ids()[token]:
                losses.append(-float(logits[step].log_softmax(0)[token]))
    return np.mean(losses)


def test_losses_are_those_of_content_words_under_each_guide(captioner):
    with torch.inference_mode():
        found = content_losses(captioner, tokens_of(captioner), REFERENCES)
        for clip in range(3):
            assert found["off"][clip] == pytest.approx(by_hand(captioner, clip, None), abs=1e-4)
            assert found["own"][clip] == pytest.approx(by_hand(captioner, clip, clip), abs=1e-4)
            other = by_hand(captioner, clip, (clip - 1) % 3)
            assert found["other"][clip] == pytest.approx(other, abs=1e-4)


def test_the_centered_part_is_what_the_guide_has_beyond_its_mean_over_clips(captioner):
    """The norm of a word is in every clip's guide alike, so it is gone."""
    with torch.inference_mode():
        tokens = tokens_of(captioner)
        bias = torch.cat([captioner.guide_bias(z) for z in tokens])
        found = content_losses(captioner, tokens_of(captioner), REFERENCES, scales=[3.0])
        texts = captioner.decoder.tokenize(REFERENCES[0])
        guided = captioner.decoder(*tokens[0], texts) + 3 * (bias - bias.mean(0))[0]
        content = captioner.decoder.content_ids()[texts.ids]
        expected = torch.nn.functional.cross_entropy(guided[content], texts.ids[content])
    assert found["centered x3"][0] == pytest.approx(float(expected), abs=1e-4)


def test_the_shape_of_a_guide_of_norms_alone_is_seen(captioner):
    with torch.inference_mode():
        shape = guide_shape(captioner, tokens_of(captioner))
    assert -1.0 <= shape.norm_correlation <= 1.0
    assert 0.0 < shape.clip_spread < shape.spread


def test_a_difference_has_an_interval_over_clips_and_seeds():
    rng = np.random.default_rng(0)
    base = rng.normal(size=200)
    runs = [{"a": base - 0.5 + 0.1 * rng.normal(size=200), "b": base} for _ in range(3)]
    mean, low, high, p = difference(runs, "a", "b")
    assert low < -0.5 < high
    assert p < 0.001
    assert difference([{**run, "b": run["a"]} for run in runs], "a", "b").p == 1.0
    assert mean == pytest.approx(np.mean([run["a"] - run["b"] for run in runs]))
    assert high - low < 0.06
