"""Corrections and the bootstrap over clips and seeds together, against closed forms."""

import math

import numpy as np
import pytest

from earwitness.statistics import (
    Resamples,
    draw_seeds,
    holm,
    interval,
    mean_of,
    over_seeds,
    recentered,
    replicates,
    shifted_test,
)


def test_holm_equals_the_steps_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.5: times 4, 3, 2, 1, never below an earlier one.
    assert holm([0.02, 0.5, 0.01, 0.03]) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_passes_over_what_was_not_tested() -> None:
    first, second, third = holm([math.nan, 0.02, 0.03])
    assert math.isnan(first)
    assert (second, third) == pytest.approx((0.04, 0.04))


def test_holm_rejects_a_true_null_as_seldom_as_it_says() -> None:
    rng = np.random.default_rng(0)
    any_rejected = [min(holm(rng.random(20).tolist())) < 0.05 for _ in range(2000)]
    assert np.mean(any_rejected) == pytest.approx(0.05, abs=0.015)


def test_resamples_without_pairs_are_drawn_again() -> None:
    counts = Resamples.draw(2, 400, 0, pairs=True).counts
    assert (counts == 1).all()
    assert (Resamples.draw(2, 400, 0).counts == 2).any()


def test_spread_over_clips_and_seeds_is_the_sum_of_both_variances() -> None:
    rng = np.random.default_rng(0)
    runs, clips, draws = 8, 400, 4000
    levels = rng.normal(size=(runs, 1))
    scores = levels + rng.normal(size=(1, clips))
    statistics = [mean_of(row) for row in scores]
    found = over_seeds(replicates(statistics, clips, draws, 1), draw_seeds(runs, draws, rng))
    expected = levels.var() / runs + scores[0].var() / clips
    assert found.var() == pytest.approx(expected, rel=0.1)
    assert found.mean() == pytest.approx(scores.mean(), abs=0.02)


def test_seeds_that_differ_make_the_difference_unsure() -> None:
    """Swapping captions alone calls two systems different that differ by their seeds only."""
    rng = np.random.default_rng(0)
    ps = []
    for trial in range(150):
        sides = []
        for _ in range(2):
            scores = rng.normal(size=(10, 1)) + 0.1 * rng.normal(size=(10, 30))
            made = replicates([mean_of(row) for row in scores], 30, 200, trial)
            sides.append((over_seeds(made, draw_seeds(10, 200, rng)), scores.mean()))
        (first, mine), (second, theirs) = sides
        ps.append(shifted_test(first - second, mine - theirs))
    assert 0.02 <= np.mean(np.array(ps) <= 0.05) <= 0.13
    assert 0.4 <= np.mean(ps) <= 0.6


def test_interval_holds_the_value_and_ends_at_the_top() -> None:
    draws = np.linspace(0.0, 1.0, 101)
    assert interval(draws) == pytest.approx((0.025, 0.975))
    assert interval(draws, top=0.9) == pytest.approx((0.025, 0.9))
    assert interval(draws, holding=2.0) == pytest.approx((0.025, 2.0))
    assert recentered(draws, 3.0).mean() == pytest.approx(3.0)
