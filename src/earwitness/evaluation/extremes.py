"""Which clips to inspect: the best, the worst, and those on which the metrics disagree."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from earwitness.evaluation.scores import Evaluation

RANKED = ("rouge_l", "cider_d", "meteor", "spice", "sbert_sim")


@dataclass(frozen=True)
class Extremes:
    """Clip indices in order; `ranks` per metric from 0 (worst) to 1 (best)."""

    best: list[int]
    worst: list[int]
    disputed: list[int]
    ranks: dict[str, list[float]]


def extremes(run: Evaluation, count: int) -> Extremes:
    """The `count` clips with the highest and lowest mean rank, and the widest spread of ranks.

    A rank is the share of clips that a clip beats under one metric, ties counting half; ranks make
    metrics on different scales comparable. Metrics without a value per clip, and lengths, are not
    used.
    """
    (ranks,) = joint_ranks([run])
    if not ranks:
        return Extremes([], [], [], {})
    table = np.array([*ranks.values()])
    order = np.argsort(-table.mean(axis=0), kind="stable")
    half = min(count, -(-len(order) // 2))
    spread = table.max(axis=0) - table.min(axis=0)
    disputed = np.argsort(-spread, kind="stable")[:count] if len(ranks) > 1 else np.array([], int)
    worst = order[::-1][: min(half, len(order) - half)]
    return Extremes(order[:half].tolist(), worst.tolist(), disputed.tolist(), ranks)


def joint_ranks(runs: Sequence[Evaluation]) -> list[dict[str, list[float]]]:
    """The ranks of each run per metric, among the captions of all runs."""
    ranks: list[dict[str, list[float]]] = [{} for _ in runs]
    for name in RANKED:
        if all(name in run.per_clip[0] for run in runs):
            values = rank([row[name] for run in runs for row in run.per_clip])
            for one, part in zip(ranks, np.split(values, len(runs)), strict=True):
                one[name] = part.tolist()
    return ranks


def rank(scores: Sequence[float]) -> Float[np.ndarray, " clips"]:
    """The share of the others that each score beats, ties counting half; 0.5 for a single score."""
    values = np.array(scores)
    ordered = np.sort(values)
    below = np.searchsorted(ordered, values, side="left")
    not_above = np.searchsorted(ordered, values, side="right")
    if len(values) == 1:
        return np.array([0.5])
    return (below + (not_above - below - 1) / 2) / (len(values) - 1)


def most_changed(first: Evaluation, second: Evaluation, count: int) -> list[int]:
    """The clips whose mean rank, among both systems' captions, differs most between systems."""
    mine, theirs = joint_ranks([first, second])
    if not mine:
        return []
    shifts = np.array([*mine.values()]) - np.array([*theirs.values()])
    return np.argsort(-np.abs(shifts.mean(axis=0)), kind="stable")[:count].tolist()
