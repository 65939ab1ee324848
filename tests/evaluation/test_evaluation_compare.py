"""Pooled seeds, paired tests and the ranks behind the report page."""

import math

import numpy as np
import pytest

from earwitness import evaluate, statistics
from earwitness.errors import DataError
from earwitness.evaluation import compare, pool
from earwitness.evaluation.extremes import extremes, most_changed, rank

WORDS = [f"word{n}" for n in range(14)]


def corpus(clips: int, noise: float, seed: int) -> tuple[list[str], list[list[str]]]:
    """Random references, and candidates that copy one but for a share `noise` of its words."""
    rng = np.random.default_rng(7)
    references = [[" ".join(rng.choice(WORDS, 8)) for _ in range(3)] for _ in range(clips)]
    rng = np.random.default_rng(seed)
    candidates = [
        " ".join(w if rng.random() > noise else "noise" for w in group[0].split())
        for group in references
    ]
    return candidates, references


def run(clips: int, noise: float, seed: int, draws: int = 300):
    return evaluate(
        *corpus(clips, noise, seed),
        metrics=["bleu", "rouge_l", "cider_d", "vocabulary"],
        resamples=draws,
    )


def test_better_system_is_found_and_the_interval_excludes_zero():
    result = compare(run(60, 0.1, 1), run(60, 0.6, 2))
    for name in ("bleu_4", "rouge_l", "cider_d"):
        difference = result[name]
        assert difference.difference == difference.first - difference.second > 0
        assert difference.p == pytest.approx(1 / 301)
        assert 0 < difference.low < difference.difference < difference.high


def test_identical_systems_differ_by_nothing():
    one = run(40, 0.3, 1)
    for difference in compare(one, one).values():
        assert (difference.difference, difference.low, difference.high) == (0, 0, 0)
        assert difference.p == 1


def test_swap_test_is_uniform_when_systems_are_exchangeable():
    rng = np.random.default_rng(0)
    ps = []
    for trial in range(200):
        scores = rng.normal(size=(2, 40))
        pair = (statistics.mean_of(scores[0]), statistics.mean_of(scores[1]))
        ps.append(statistics.swap_test([pair], 40, 99, trial))
    assert 0.01 <= np.mean(np.array(ps) <= 0.05) <= 0.1
    assert 0.4 <= np.mean(ps) <= 0.6


def test_swap_test_equals_all_swaps_of_three_clips():
    first, second = np.array([3.0, 2.0, 1.0]), np.array([0.0, 0.5, 2.0])
    delta = first - second
    signs = np.array(np.meshgrid(*[[-1, 1]] * 3)).reshape(3, -1).T
    exact = np.mean(np.abs(signs @ delta) >= abs(delta.sum()) - 1e-12)
    pair = (statistics.mean_of(first), statistics.mean_of(second))
    assert statistics.swap_test([pair], 3, 20_000, 0) == pytest.approx(exact, abs=0.01)


def test_swapping_every_clip_exchanges_the_vocabularies():
    first, second = (statistics.Coverage(items, [0, 1]) for items in (["a", "b"], ["a", "a"]))
    both = statistics.joined(first, second, 2)
    weights = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 0, 1], [0, 1, 1, 0]], dtype=float)
    assert both.values(weights).tolist() == [2, 1, 1, 2]


def test_paired_interval_is_narrower_than_unpaired_for_like_systems():
    first, second = run(80, 0.3, 1), run(80, 0.35, 1)
    difference = compare(first, second)["rouge_l"]
    widths = [one.corpus["rouge_l"].high - one.corpus["rouge_l"].low for one in (first, second)]
    assert difference.high - difference.low < math.hypot(*widths)


def test_pooled_value_is_the_mean_and_sd_that_of_the_seeds():
    runs = [run(40, noise, seed) for seed, noise in enumerate((0.2, 0.3, 0.5))]
    pooled = pool(runs)["cider_d"]
    values = [one.corpus["cider_d"].value for one in runs]
    assert pooled.value == pytest.approx(np.mean(values))
    assert pooled.sd == pytest.approx(np.std(values, ddof=1))
    assert pooled.runs == values
    assert pooled.low < pooled.value < pooled.high


def test_pooled_interval_is_wider_than_one_that_ignores_the_seeds():
    runs = [run(60, noise, seed) for seed, noise in enumerate((0.0, 0.8))]
    pooled = pool(runs)["rouge_l"]
    clips_only = max(one.corpus["rouge_l"].high - one.corpus["rouge_l"].low for one in runs)
    assert pooled.high - pooled.low > 2 * clips_only


def test_pool_of_one_run_is_that_run():
    one = run(30, 0.3, 1)
    pooled = pool([one])["bleu_2"]
    assert (pooled.value, pooled.low, pooled.high) == (
        one.corpus["bleu_2"].value,
        *one.corpus["bleu_2"].interval,
    )
    assert math.isnan(pooled.sd)


def test_several_seeds_compare_as_means():
    ours, theirs = [run(40, 0.2, s) for s in (1, 2)], [run(40, 0.4, s) for s in (3, 4)]
    result = compare(ours, theirs)["rouge_l"]
    expected = np.mean([r.corpus["rouge_l"].value for r in ours])
    assert result.first == pytest.approx(expected)
    assert result.p < 0.05


def test_unlike_evaluations_are_not_compared():
    one = run(30, 0.3, 1)
    with pytest.raises(DataError, match="different clips"):
        compare(one, run(31, 0.3, 1))
    with pytest.raises(DataError, match="2 seeds against 1"):
        compare([one, one], [one])
    other = evaluate(*corpus(30, 0.3, 1), metrics=["bleu"], tokenizer="ptb", resamples=10)
    with pytest.raises(DataError, match="text normalization"):
        compare(one, other)
    with pytest.raises(DataError, match="no evaluation"):
        pool([])


def test_rank_is_the_share_of_others_beaten():
    assert rank([0.1, 0.5, 0.5, 0.9]).tolist() == [0, 0.5, 0.5, 1]


def test_best_and_worst_do_not_overlap_and_lead_to_the_right_clips():
    candidates = ["a dog barks loudly", "noise", "a dog runs", "rain falls"]
    references = [["a dog barks loudly"], ["birds sing"], ["a dog barks"], ["heavy rain falls"]]
    found = extremes(evaluate(candidates, references, metrics=["rouge_l", "cider_d"]), 9)
    assert found.best[0] == 0
    assert found.worst[0] == 1
    assert not set(found.best) & set(found.worst)


def test_most_changed_puts_the_changed_clip_first():
    references = [["a dog barks"], ["rain falls"], ["a man speaks"]]
    first = evaluate(["a dog barks", "rain falls", "x"], references, metrics=["rouge_l"])
    second = evaluate(["a dog barks", "noise", "x"], references, metrics=["rouge_l"])
    assert most_changed(first, second, 1) == [1]
