"""Intervals and tests for scores and distances: one bootstrap for evaluation and gap."""

from earwitness.statistics.corpus import Coverage, Statistic, Sums, joined, mean_of, value
from earwitness.statistics.intervals import Estimate, interval, recentered, replicates
from earwitness.statistics.paired import holm, shifted_test, swap_test
from earwitness.statistics.resamples import Resamples, draw_seeds, over_seeds

__all__ = [
    "Coverage",
    "Estimate",
    "Resamples",
    "Statistic",
    "Sums",
    "draw_seeds",
    "holm",
    "interval",
    "joined",
    "mean_of",
    "over_seeds",
    "recentered",
    "replicates",
    "shifted_test",
    "swap_test",
    "value",
]
