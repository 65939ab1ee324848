"""`evaluate`: captions and references in, corpus scores with intervals and per-clip scores out."""

import difflib
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from earwitness.errors import CheckpointError, DataError
from earwitness.evaluation.java import MetricNotRunError
from earwitness.evaluation.metrics import FAMILIES, NEEDS, Column, Job, MetricSettings
from earwitness.evaluation.text import TOKENIZERS, normalize_captions
from earwitness.statistics import Statistic, interval, replicates, value


@dataclass(frozen=True)
class Score:
    """A corpus score and its 95 % interval; the bounds are NaN without resamples."""

    value: float
    low: float
    high: float

    @property
    def interval(self) -> tuple[float, float]:
        return self.low, self.high

    def __float__(self) -> float:
        return self.value


@dataclass(frozen=True)
class Evaluation:
    """The scores of one system on one set of clips.

    `corpus` maps names to `Score`s; `per_clip` has one dict of names to numbers per clip;
    `not_run` says why a metric is missing; `fingerprint` states the metric definitions and the text
    normalization behind the numbers.
    """

    corpus: dict[str, Score]
    per_clip: list[dict[str, float]]
    not_run: dict[str, str]
    fingerprint: dict[str, object]
    ids: list[str] = field(repr=False)
    candidates: list[str] = field(repr=False)
    references: list[list[str]] = field(repr=False)
    statistics: dict[str, Statistic] = field(repr=False)
    resamples: int = 1000
    seed: int = 0


def evaluate(
    candidates: list[str],
    references: list[list[str]],
    *,
    metrics: Sequence[str] | None = None,
    ids: list[str] | None = None,
    tokenizer: str = "simple",
    java: Path | str | None = None,
    meteor_jar: Path | None = None,
    corenlp: Path | None = None,
    sbert: str | None = None,
    fluency: str | None = None,
    device: str | None = None,
    timeout: float | int = 600,
    resamples: int = 1000,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Evaluation:
    """The scores of `candidates` (one per clip) against `references` (one or more per clip).

    Without `metrics`, all are tried; those that cannot run are listed in `not_run` with the reason,
    and are never replaced by another number. Every corpus score has a 95 % bootstrap interval over
    clips from `resamples` resamples (0: none). `timeout` is in seconds, for one Java run or one
    SPICE batch.

    Raises:
        DataError: the two lists do not match, a clip has no reference, or a metric name is unknown.
        MetricNotRunError: tokenizer "ptb" without Java.
    """
    names = [str(i) for i in range(len(candidates))] if ids is None else ids
    _check(candidates, references, names, resamples)
    wanted = select(metrics)
    texts = normalize_captions(candidates, references, tokenizer, java=java, timeout=float(timeout))
    _check_words(texts.references, names)
    settings = MetricSettings(java, meteor_jar, corenlp, sbert, fluency, device, float(timeout))
    job = Job(texts, settings, progress)
    columns, not_run = _run(job, wanted)
    statistics = {name: column.statistic for name, column in columns.items()}
    corpus = _corpus(statistics, len(candidates), resamples, seed)
    return Evaluation(
        corpus=corpus,
        per_clip=_per_clip(columns, len(candidates)),
        not_run=not_run,
        fingerprint=_fingerprint(job, tokenizer, resamples, seed),
        ids=names,
        candidates=candidates,
        references=references,
        statistics=statistics,
        resamples=resamples,
        seed=seed,
    )


def select(metrics: Sequence[str] | None) -> list[str]:
    """The metric families to compute, in a fixed order, including those that others depend on.

    Raises:
        DataError: a name is unknown; the message suggests the closest one.
    """
    if metrics is None:
        return list(FAMILIES)
    chosen: set[str] = set()
    for metric in metrics:
        name = "bleu" if metric in ("bleu_1", "bleu_2", "bleu_3", "bleu_4") else metric
        if name not in FAMILIES:
            near = difflib.get_close_matches(name, FAMILIES, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(FAMILIES)}"
            raise DataError(f"unknown metric {metric!r}; {hint}")
        chosen |= {name, *NEEDS.get(name, ())}
    if not chosen:
        raise DataError(f"no metric given; known are {', '.join(FAMILIES)}")
    return [name for name in FAMILIES if name in chosen]


def _run(job: Job, families: Sequence[str]) -> tuple[dict[str, Column], dict[str, str]]:
    columns: dict[str, Column] = {}
    not_run: dict[str, str] = {}
    for family in families:
        try:
            columns |= FAMILIES[family](job)
        except (MetricNotRunError, CheckpointError) as error:
            not_run[family] = str(error)
    return columns, not_run


def _corpus(
    statistics: dict[str, Statistic], clips: int, draws: int, seed: int
) -> dict[str, Score]:
    bounds = [(math.nan, math.nan)] * len(statistics)
    if clips > 1 and draws > 0 and statistics:
        found = replicates([*statistics.values()], clips, draws, seed)
        tops = [statistic.top for statistic in statistics.values()]
        bounds = [interval(*row) for row in zip(found, tops, strict=True)]
    return {
        name: Score(value(statistic, clips), *bound)
        for (name, statistic), bound in zip(statistics.items(), bounds, strict=True)
    }


def _per_clip(columns: dict[str, Column], clips: int) -> list[dict[str, float]]:
    lists = {n: c.per_clip.tolist() for n, c in columns.items() if c.per_clip is not None}
    return [{name: scores[clip] for name, scores in lists.items()} for clip in range(clips)]


def _fingerprint(job: Job, tokenizer: str, draws: int, seed: int) -> dict[str, object]:
    from earwitness import __version__

    definitions = {"text": TOKENIZERS[tokenizer], "metrics": dict(job.notes)}
    digest = hashlib.sha256(json.dumps(definitions, sort_keys=True).encode()).hexdigest()
    return {
        "digest": digest[:16],
        **definitions,
        "bootstrap": {"resamples": draws, "seed": seed, "level": 0.95, "interval": "percentile"},
        "earwitness": __version__,
    }


def _check(
    candidates: list[str], references: list[list[str]], ids: list[str], resamples: int
) -> None:
    if not candidates:
        raise DataError("no captions to evaluate: the list of candidates is empty")
    if len(candidates) != len(references) or len(ids) != len(candidates):
        raise DataError(
            f"{len(candidates)} candidates, {len(references)} lists of references and {len(ids)} "
            "ids: "
            "expected one of each per clip"
        )
    if len(set(ids)) != len(ids):
        raise DataError("the ids are not unique")
    for name, group in zip(ids, references, strict=True):
        if isinstance(group, str) or not group:
            raise DataError(
                f"clip {name!r}: expected a list with at least one reference, got {group!r}"
            )
    if resamples < 0:
        raise DataError(f"resamples {resamples}: expected 0 or more")


def _check_words(references: list[list[str]], ids: list[str]) -> None:
    for name, group in zip(ids, references, strict=True):
        for number, text in enumerate(group, start=1):
            if not text:
                raise DataError(f"clip {name!r}: reference {number} holds no word")
