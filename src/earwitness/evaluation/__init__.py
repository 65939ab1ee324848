"""Captions and references in, scores with intervals out."""

from earwitness.evaluation.compare import Difference, PooledScore, compare, pool
from earwitness.evaluation.java import MetricNotRunError
from earwitness.evaluation.scores import Evaluation, Score, evaluate

__all__ = [
    "Difference",
    "Evaluation",
    "MetricNotRunError",
    "PooledScore",
    "Score",
    "compare",
    "evaluate",
    "pool",
]
