"""Pieces of the search in numpy against transformers' own."""

import numpy as np
import torch
from transformers import (
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TopPLogitsWarper,
)

from earwitness.caption import Decoding
from earwitness.runtime.scores import Scores, log_softmax, warped
from earwitness.runtime.search import _drawn, _largest


def scores_like(rows: int = 6, words: int = 50, seed: int = 0) -> np.ndarray:
    return 3 * np.random.default_rng(seed).standard_normal((rows, words)).astype(np.float32)


def test_log_softmax_is_that_of_torch() -> None:
    x = scores_like()
    assert np.allclose(log_softmax(x), torch.from_numpy(x).log_softmax(1).numpy(), atol=1e-6)


def test_top_p_keeps_what_transformers_keeps() -> None:
    x = scores_like()
    for top_p in (0.1, 0.5, 0.9, 0.99):
        wanted = TopPLogitsWarper(top_p)(torch.zeros(6, 0).long(), torch.from_numpy(x / 0.7))
        assert np.array_equal(np.isfinite(warped(x, 0.7, top_p)), torch.isfinite(wanted).numpy())


def test_penalties_are_those_of_transformers() -> None:
    said = np.random.default_rng(1).integers(0, 5, (6, 9))
    x = scores_like()
    for n in (1, 2, 3):
        found = Scores(Decoding(repetition_penalty=1.4, no_repeat_ngram=n), None, None)(
            x, said, normal=False
        )
        ids, wanted = torch.from_numpy(said), torch.from_numpy(x.copy())
        wanted = RepetitionPenaltyLogitsProcessor(1.4)(ids, wanted)
        wanted = NoRepeatNGramLogitsProcessor(n)(ids, wanted)
        assert np.allclose(found, wanted.numpy())


def test_draws_follow_the_probabilities() -> None:
    probabilities = np.array([[0.5, 0.0, 0.3, 0.2]])
    with np.errstate(divide="ignore"):
        logs = np.log(probabilities.repeat(4000, axis=0))
    tokens = _drawn(logs.astype(np.float32), [np.random.default_rng(3)], 4000)
    counts = np.bincount(tokens, minlength=4) / 4000
    assert counts[1] == 0
    assert np.abs(counts - probabilities[0]).max() < 0.03


def test_largest_are_those_of_a_full_sort() -> None:
    x = np.random.default_rng(2).integers(0, 30, (5, 200)).astype(np.float32)
    values, places = _largest(x, 16)
    assert np.array_equal(values, -np.sort(-x, axis=1)[:, :16])
    assert np.array_equal(np.take_along_axis(x, places, axis=1), values)
