"""The list of metrics: the name of each, what it needs, and how its columns are computed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float

from earwitness.evaluation import overlap, semantic
from earwitness.evaluation.java import MetricNotRunError, required_jar
from earwitness.evaluation.meteor import meteor, meteor_counts
from earwitness.evaluation.spice import spice
from earwitness.evaluation.text import NormalizedCaptions
from earwitness.statistics import Coverage, Statistic, Sums, mean_of

FLUENCY_PENALTY = 0.9
_HINTS = {
    "sbert": "no sentence encoder given: pass sbert (--sbert), a folder, a hub id, "
    f"or the installed '{semantic.MINILM}'",
    "fluency": "no fluency detector given: pass fluency (--fluency), a folder or a hub id of "
    f"{semantic.FENSE_FLUENCY}",
}


@dataclass(frozen=True)
class Column:
    """One score: its corpus `statistic`, and its value per clip if it has one."""

    statistic: Statistic
    per_clip: np.ndarray | None = None


@dataclass(frozen=True)
class MetricSettings:
    """The locations of the metrics' external parts; `timeout` is in seconds per Java run."""

    java: Path | str | None = None
    meteor_jar: Path | None = None
    corenlp: Path | None = None
    sbert: str | None = None
    fluency: str | None = None
    device: str | None = None
    timeout: float = 600.0


@dataclass
class Job:
    """One set of normalized captions to evaluate, and what its metrics share."""

    texts: NormalizedCaptions
    settings: MetricSettings
    progress: Callable[[str], None] | None = None
    scores: dict[str, np.ndarray] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    @cached_property
    def grams(self) -> overlap.Grams:
        return overlap.count_grams(self.texts.candidates, self.texts.references)

    def say(self, text: str) -> None:
        if self.progress is not None:
            self.progress(text)


def spider(
    cider_d: Float[np.ndarray, " clips"], spice_f: Float[np.ndarray, " clips"]
) -> Float[np.ndarray, " clips"]:
    """SPIDEr: the mean of CIDEr-D and SPICE (Liu et al. 2017)."""
    return (cider_d + spice_f) / 2


def penalized(
    score: Float[np.ndarray, " clips"], fluency_error: Float[np.ndarray, " clips"]
) -> Float[np.ndarray, " clips"]:
    """`score` reduced by 90 % for fluency errors: SPIDEr-FL from SPIDEr, FENSE from sbert_sim."""
    return score * (1.0 - FLUENCY_PENALTY * fluency_error)


def _bleu(job: Job) -> dict[str, Column]:
    counts = overlap.bleu_counts(job.grams)
    scores = overlap.bleu(counts)
    job.notes["bleu"] = (
        "BLEU-1..4 (Papineni 2002), closest reference length, COCO smoothing 1e-15/1e-9"
    )
    return {
        f"bleu_{n + 1}": Column(
            Sums(counts, lambda sums, n=n: overlap.bleu(sums)[..., n]), scores[:, n]
        )
        for n in range(overlap.ORDERS)
    }


def _rouge_l(job: Job) -> dict[str, Column]:
    job.notes["rouge_l"] = (
        f"ROUGE-L (Lin 2004), beta {overlap.ROUGE_BETA}, best precision and best recall"
    )
    return _mean_column(job, "rouge_l", overlap.rouge_l(job.texts.candidates, job.texts.references))


def _cider_d(job: Job) -> dict[str, Column]:
    if len(job.texts.candidates) < 2:
        raise MetricNotRunError(
            "needs at least two clips: with one, every document frequency is 1 of 1"
        )
    job.notes["cider_d"] = (
        "CIDEr-D (Vedantam 2015), n 1..4, sigma 6, scale 10, document frequencies from these "
        "references"
    )
    return _mean_column(job, "cider_d", overlap.cider_d(job.grams))


def _meteor(job: Job) -> dict[str, Column]:
    job.say("meteor: running the jar")
    given = job.settings
    counts = meteor_counts(
        job.texts.candidates,
        job.texts.references,
        java=given.java,
        jar=given.meteor_jar,
        timeout=given.timeout,
    )
    jar = required_jar(given.meteor_jar, "meteor", "meteor-1.5.jar")
    job.notes["meteor"] = (
        f"METEOR 1.5 (Denkowski 2014), en, -norm, {jar.name} of {jar.stat().st_size} bytes"
    )
    return {"meteor": Column(Sums(counts, meteor), meteor(counts))}


def _spice(job: Job) -> dict[str, Column]:
    given = job.settings
    scores = spice(
        job.texts.candidates,
        job.texts.references,
        corenlp=given.corenlp,
        java=given.java,
        timeout=given.timeout,
        progress=job.progress,
    )
    job.notes["spice"] = "SPICE 1.0 (Anderson 2016), CoreNLP 3.6.0, F over all tuples, no cache"
    return _mean_column(job, "spice", scores)


def _spider(job: Job) -> dict[str, Column]:
    scores = spider(_part(job, "cider_d"), _part(job, "spice"))
    job.notes["spider"] = "SPIDEr (Liu 2017): mean of cider_d and spice"
    return _mean_column(job, "spider", scores)


def _sbert_sim(job: Job) -> dict[str, Column]:
    name = job.settings.sbert
    if name is None:
        raise MetricNotRunError(_HINTS["sbert"])
    job.say(f"sbert_sim: embedding with {name}")
    model = semantic.load_sbert(name, job.settings.device)
    job.notes["sbert_sim"] = (
        f"mean cosine to the references, {semantic.short_name(name)} {model.digest}"
    )
    scores = semantic.sbert_similarity(model, job.texts.candidates, job.texts.references)
    return _mean_column(job, "sbert_sim", scores)


def _fer(job: Job) -> dict[str, Column]:
    name = job.settings.fluency
    if name is None:
        raise MetricNotRunError(_HINTS["fluency"])
    if not semantic.is_fense_fluency(name):
        raise MetricNotRunError(
            f"defined with the detector {semantic.FENSE_FLUENCY}; {name} does not have that name"
        )
    job.say(f"fer: looking for fluency errors with {name}")
    model = semantic.load_fluency(name, job.settings.device)
    job.notes["fer"] = f"share of captions with error probability above 0.9, {model.digest}"
    probability = semantic.error_probability(model, job.texts.candidates)
    return _mean_column(job, "fer", (probability > semantic.ERROR_THRESHOLD).astype(float))


def _spider_fl(job: Job) -> dict[str, Column]:
    scores = penalized(_part(job, "spider"), _part(job, "fer"))
    job.notes["spider_fl"] = "SPIDEr-FL (DCASE 2023): spider less 90 % where fer is 1"
    return _mean_column(job, "spider_fl", scores)


def _fense(job: Job) -> dict[str, Column]:
    sbert = job.settings.sbert
    if sbert is not None and not semantic.is_fense_sbert(sbert):
        raise MetricNotRunError(
            f"defined with the encoder {semantic.FENSE_SBERT}; {sbert} is another one"
        )
    scores = penalized(_part(job, "sbert_sim"), _part(job, "fer"))
    job.notes["fense"] = "FENSE (Zhou 2022): sbert_sim less 90 % where fer is 1"
    return _mean_column(job, "fense", scores)


def _vocabulary(job: Job) -> dict[str, Column]:
    captions = [text.split() for text in job.texts.candidates]
    known = {word for group in job.texts.references for text in group for word in text.split()}
    words = _grams_of(captions, 1)
    job.notes["vocabulary"] = (
        "distinct words; share of the references' words; distinct-1, distinct-2 (per 1-, "
        "2-gram); distinct captions"
    )
    totals = [np.array([max(len(c) - n, 0) for c in captions], dtype=float) for n in range(2)]
    whole = [(text, index) for index, text in enumerate(job.texts.candidates)]
    shared = [(word, index) for word, index in words if word in known]
    return {
        "vocabulary": _coverage(words),
        "vocabulary_recall": _coverage(shared, scale=1 / len(known)),
        "distinct_1": _coverage(words, totals[0]),
        "distinct_2": _coverage(_grams_of(captions, 2), totals[1]),
        "distinct_captions": _coverage(whole, np.ones(len(captions))),
    }


def _length(job: Job) -> dict[str, Column]:
    job.notes["length"] = "words per caption after normalization"
    lengths = [float(len(text.split())) for text in job.texts.candidates]
    return _mean_column(job, "length", np.array(lengths))


def _mean_column(job: Job, name: str, scores: np.ndarray) -> dict[str, Column]:
    job.scores[name] = scores
    return {name: Column(mean_of(scores), scores)}


def _part(job: Job, name: str) -> np.ndarray:
    if name not in job.scores:
        raise MetricNotRunError(f"needs {name}, which was not run")
    return job.scores[name]


def _grams_of(captions: list[list[str]], n: int) -> list[tuple[str, int]]:
    return [
        (" ".join(words[start : start + n]), index)
        for index, words in enumerate(captions)
        for start in range(len(words) - n + 1)
    ]


def _coverage(
    pairs: list[tuple[str, int]], totals: np.ndarray | None = None, scale: float = 1.0
) -> Column:
    items, clips = [item for item, _ in pairs], [clip for _, clip in pairs]
    top = float(np.inf) if totals is None and scale == 1.0 else 1.0
    return Column(Coverage(items, clips, totals, scale, top))


FAMILIES: dict[str, Callable[[Job], dict[str, Column]]] = {
    "bleu": _bleu,
    "rouge_l": _rouge_l,
    "cider_d": _cider_d,
    "meteor": _meteor,
    "spice": _spice,
    "spider": _spider,
    "sbert_sim": _sbert_sim,
    "fer": _fer,
    "spider_fl": _spider_fl,
    "fense": _fense,
    "vocabulary": _vocabulary,
    "length": _length,
}
NEEDS = {
    "spider": ("cider_d", "spice"),
    "spider_fl": ("cider_d", "spice", "spider", "fer"),
    "fense": ("sbert_sim", "fer"),
}
