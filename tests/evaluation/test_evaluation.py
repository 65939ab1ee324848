"""Caption metrics against given scores, other implementations and brute force."""

import csv
import importlib.util
import json
import math
import sys
import time
import types
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from earwitness import evaluate, statistics
from earwitness.errors import DataError
from earwitness.evaluation import overlap
from earwitness.evaluation.meteor import meteor, meteor_counts
from earwitness.evaluation.metrics import penalized, spider
from earwitness.evaluation.text import simple
from earwitness.statistics import resamples

LEXICAL = ["bleu", "rouge_l", "cider_d"]
TINY = (
    ["a dog barks", "rain falls on a roof", "a man speaks", "music plays"],
    [
        ["a dog barks loudly", "the dog is barking at a man"],
        ["rain falls on the roof", "heavy rain falls", "water falls on a metal roof"],
        ["a man speaks while a dog barks", "a man is speaking", "a man speaks"],
        ["birds sing", "a bird sings in a tree"],
    ],
)


@pytest.fixture(scope="module")
def published(shared_data: Path):
    """Captions, references, per-clip scores and corpus scores of a published system."""
    folder = shared_data / "metric_reference"
    with (folder / "clotho_eval_conette.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    corpus = json.loads((folder / "clotho_eval_conette.json").read_text())["corpus_scores"]
    references = [[row[f"reference_{n}"] for n in range(1, 6)] for row in rows]
    return [row["candidate"] for row in rows], references, rows, corpus


def column(rows: list[dict[str, str]], name: str) -> np.ndarray:
    return np.array([float(row[name]) for row in rows])


@pytest.fixture(scope="module")
def scored(published):
    return evaluate(published[0], published[1], metrics=LEXICAL, resamples=0)


@pytest.mark.parametrize("name", ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider_d"])
def test_overlap_metrics_equal_the_published_scores(published, scored, name: str):
    _, _, rows, corpus = published
    ours = np.array([clip[name] for clip in scored.per_clip])
    np.testing.assert_allclose(ours, column(rows, name), rtol=0, atol=1e-9)
    assert scored.corpus[name].value == pytest.approx(corpus[name], abs=1e-9)


def test_meteor_equals_the_published_scores_and_is_zero_for_an_empty_caption(published):
    candidates, references, rows, corpus = published
    counts = meteor_counts([*candidates, ""], [*references, ["birds sing"]])
    scores = meteor(counts)
    np.testing.assert_allclose(scores[:-1], column(rows, "meteor"), rtol=0, atol=1e-9)
    assert meteor(counts[:-1].sum(axis=0, keepdims=True))[0] == pytest.approx(
        corpus["meteor"], abs=1e-9
    )
    assert scores[-1] == 0
    assert counts[-1, 0] == 0


def test_spider_spider_fl_and_fense_follow_from_their_given_parts(published):
    _, _, rows, corpus = published
    errors = column(rows, "fer")
    combined = spider(column(rows, "cider_d"), column(rows, "spice"))
    expected = {
        "spider": combined,
        "spider_fl": penalized(combined, errors),
        "fense": penalized(column(rows, "sbert_sim"), errors),
    }
    for name, ours in expected.items():
        np.testing.assert_allclose(ours, column(rows, name), rtol=0, atol=1e-9)
        assert ours.mean() == pytest.approx(corpus[name], abs=1e-9)


@pytest.fixture
def aac_metrics(monkeypatch):
    """The lexical modules of aac-metrics, imported past its package, which asks for much more."""
    spec = importlib.util.find_spec("aac_metrics")
    if spec is None:
        pytest.skip("needs aac-metrics 0.5.4")
    home = Path(spec.submodule_search_locations[0])
    for name in ("aac_metrics", "aac_metrics.functional", "aac_metrics.utils"):
        package = types.ModuleType(name)
        package.__path__ = [str(home.joinpath(*name.split(".")[1:]))]
        monkeypatch.setitem(sys.modules, name, package)
    return lambda name: importlib.import_module(f"aac_metrics.functional.{name}")


@pytest.mark.parametrize("name", ["bleu", "rouge_l", "cider_d"])
def test_overlap_metrics_equal_aac_metrics(published, scored, aac_metrics, name: str):
    candidates, references, _, _ = published
    compute = getattr(aac_metrics(name), name)
    for key in [f"bleu_{n}" for n in range(1, 5)] if name == "bleu" else [name]:
        order = {"n": int(key[-1])} if name == "bleu" else {}
        corpus, clips = compute(candidates, references, **order)
        ours = np.array([clip[key] for clip in scored.per_clip])
        np.testing.assert_allclose(ours, clips[key].numpy(), rtol=0, atol=1e-9)
        assert scored.corpus[key].value == pytest.approx(float(corpus[key]), abs=1e-9)


def brute_cider_d(candidate: str, references: list[str], documents: list[list[str]]) -> float:
    """CIDEr-D by its definition, n-gram by n-gram."""

    def grams(text: str, n: int) -> Counter[tuple[str, ...]]:
        words = text.split()
        return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))

    def idf(gram: tuple[str, ...]) -> float:
        n = len(gram)
        df = sum(any(gram in grams(text, n) for text in group) for group in documents)
        return math.log(len(documents)) - math.log(max(1, df))

    total = 0.0
    for reference in references:
        delta = sum(grams(candidate, 2).values()) - sum(grams(reference, 2).values())
        for n in (1, 2, 3, 4):
            c = {g: k * idf(g) for g, k in grams(candidate, n).items()}
            r = {g: k * idf(g) for g, k in grams(reference, n).items()}
            norms = math.sqrt(sum(v * v for v in c.values()) * sum(v * v for v in r.values()))
            dot = sum(min(c[g], r[g]) * r[g] for g in c.keys() & r.keys())
            total += (dot / norms if norms else 0.0) * math.exp(-(delta**2) / 72) / 4
    return 10 * total / len(references)


def test_cider_d_equals_a_double_loop_over_n_grams():
    candidates, references = TINY
    result = evaluate(candidates, references, metrics=["cider_d"], resamples=0)
    expected = [brute_cider_d(c, r, references) for c, r in zip(*TINY, strict=True)]
    assert [clip["cider_d"] for clip in result.per_clip] == pytest.approx(expected, abs=1e-12)
    assert max(expected) > 1


def brute_lcs(first: list[str], second: list[str]) -> int:
    if not first or not second:
        return 0
    if first[0] == second[0]:
        return 1 + brute_lcs(first[1:], second[1:])
    return max(brute_lcs(first[1:], second), brute_lcs(first, second[1:]))


def test_longest_common_subsequence_equals_recursion():
    rng = np.random.default_rng(0)
    for _ in range(200):
        first, second = ([str(w) for w in rng.integers(3, size=rng.integers(7))] for _ in range(2))
        assert overlap.longest_common(first, second) == brute_lcs(first, second)


def picks(clips: int, draws: int, seed: int) -> list[list[int]]:
    """The resamples as lists of clip numbers."""
    weights = statistics.Resamples.draw(clips, draws, seed).counts
    assert (weights.sum(axis=1) == clips).all()
    return [np.repeat(np.arange(clips), row).tolist() for row in weights]


def test_bleu_interval_equals_scoring_each_resample_anew(published):
    candidates, references = published[0][:40], published[1][:40]
    result = evaluate(candidates, references, metrics=["bleu"], resamples=60, seed=3)
    again = [
        evaluate(
            [candidates[i] for i in pick],
            [references[i] for i in pick],
            metrics=["bleu"],
            resamples=0,
        )
        for pick in picks(40, 60, 3)
    ]
    for name, score in result.corpus.items():
        values = [one.corpus[name].value for one in again]
        low, high = np.quantile(values, [0.025, 0.975])
        assert score.interval == pytest.approx((low, high), abs=1e-12)


def test_cider_d_interval_resamples_scores_with_fixed_document_frequencies():
    candidates, references = TINY
    result = evaluate(candidates, references, metrics=["cider_d"], resamples=80, seed=5)
    values = [
        np.mean([brute_cider_d(candidates[i], references[i], references) for i in pick])
        for pick in picks(4, 80, 5)
    ]
    low, high = np.quantile(values, [0.025, 0.975])
    assert result.corpus["cider_d"].interval == pytest.approx((low, high), abs=1e-9)


def test_blocks_do_not_change_the_resamples(monkeypatch):
    drawn = statistics.Resamples.draw(7, 50, 1)
    assert len([*drawn.blocks()]) == 1
    monkeypatch.setattr(resamples, "_CELLS", 30)
    assert len([*drawn.blocks()]) == 13
    assert (np.concatenate([*drawn.blocks(np.float64)]) == drawn.counts).all()


def test_interval_of_a_mean_covers_at_its_level():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        statistic = statistics.mean_of(rng.normal(size=60))
        draws = statistics.replicates([statistic], 60, 400, trial)[0]
        low, high = statistics.interval(draws)
        hits += low <= 0 <= high
    assert 0.89 <= hits / 200 <= 0.99


def test_vocabulary_and_diversity_equal_counting_by_hand():
    candidates = ["a dog barks", "a dog barks", "a cat"]
    references = [["the dog barks"], ["dogs"], ["a cat sits"]]
    corpus = evaluate(candidates, references, metrics=["vocabulary", "length"]).corpus
    assert corpus["vocabulary"].value == 4
    assert corpus["vocabulary_recall"].value == pytest.approx(4 / 7)
    assert corpus["distinct_1"].value == pytest.approx(4 / 8)
    assert corpus["distinct_2"].value == pytest.approx(3 / 5)
    assert corpus["distinct_captions"].value == pytest.approx(2 / 3)
    assert corpus["length"].value == pytest.approx(8 / 3)


def test_vocabulary_replicates_equal_counting_each_resample():
    candidates, _ = TINY
    pairs = [(word, i) for i, text in enumerate(candidates) for word in text.split()]
    statistic = statistics.Coverage([w for w, _ in pairs], [i for _, i in pairs])
    weights = statistics.Resamples.draw(4, 30, 2).counts.astype(float)
    expected = [len({w for i in pick for w in candidates[i].split()}) for pick in picks(4, 30, 2)]
    assert statistic.values(weights).tolist() == expected


def test_every_corpus_score_has_an_interval_around_it():
    result = evaluate(*TINY, metrics=[*LEXICAL, "vocabulary", "length"])
    for score in result.corpus.values():
        assert score.low <= score.value + 1e-12
        assert score.high >= score.value - 1e-12


def test_single_clip_has_bleu_without_interval_and_no_cider_d():
    result = evaluate(["a dog barks"], [["a dog barks"]], metrics=LEXICAL)
    assert result.corpus["bleu_1"].value == pytest.approx(1.0, abs=1e-6)
    assert math.isnan(result.corpus["bleu_1"].low)
    assert "cider_d" not in result.corpus
    assert "two clips" in result.not_run["cider_d"]


def test_empty_caption_scores_nothing_and_counts_in_the_corpus():
    result = evaluate(["", "a dog barks"], [["rain"], ["a dog barks"]], metrics=LEXICAL)
    assert result.per_clip[0]["rouge_l"] == 0
    assert result.per_clip[0]["cider_d"] == 0
    assert result.per_clip[0]["bleu_4"] == pytest.approx(0, abs=1e-9)
    assert result.corpus["rouge_l"].value == pytest.approx(0.5)


def test_all_captions_empty_is_zero_not_an_error():
    result = evaluate(["", ""], [["rain"], ["a dog"]], metrics=[*LEXICAL, "vocabulary"])
    assert result.corpus["bleu_1"].value == pytest.approx(0, abs=1e-9)
    assert result.corpus["vocabulary"].value == 0
    assert result.corpus["distinct_1"].value == 0


def test_meteor_formula_is_one_for_a_perfect_match_and_zero_without_words():
    counts = np.zeros((2, 23))
    counts[0, :4] = 3, 3, 1, 1
    counts[0, 4:8] = 2, 2, 1, 1
    counts[0, 21:] = 3
    assert meteor(counts).tolist() == pytest.approx([1.0, 0.0])


def test_simple_normalisation_keeps_words_and_drops_punctuation():
    assert simple("  A dog's bark,\nloud--and \u201cNEAR\u201d! ") == "a dogs bark loud and near"


def test_unicode_words_survive_normalisation():
    assert simple("Caf\u00e9, na\u00efve") == "caf\u00e9 na\u00efve"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], []), "empty"),
        ((["a"], [["a"], ["b"]]), "1 candidates, 2 lists"),
        ((["a"], [[]]), "at least one reference"),
        ((["a"], [["..."]]), "reference 1 holds no word"),
    ],
)
def test_lists_that_do_not_fit_are_named(arguments, message: str):
    with pytest.raises(DataError, match=message):
        evaluate(*arguments)


def test_unknown_metric_names_the_nearest():
    with pytest.raises(DataError, match="did you mean 'cider_d'"):
        evaluate(*TINY, metrics=["cider"])


def test_unknown_tokenizer_names_the_known_ones():
    with pytest.raises(DataError, match="simple, ptb"):
        evaluate(*TINY, tokenizer="moses")


def test_thousand_clips_with_five_references_take_less_than_three_seconds(published):
    candidates, references, _, _ = published
    metrics = [*LEXICAL, "vocabulary", "length"]
    start = time.process_time()
    evaluate(candidates, references, metrics=metrics, resamples=0)
    scoring = time.process_time() - start
    evaluate(candidates, references, metrics=metrics, resamples=1000)
    assert scoring < 3
    assert time.process_time() - start - 2 * scoring < 5


def test_fingerprint_changes_with_the_text_normalisation_alone():
    first = evaluate(*TINY, metrics=["bleu"], resamples=10)
    second = evaluate(*TINY, metrics=["bleu"], resamples=20, seed=9)
    ptb = evaluate(*TINY, metrics=["bleu"], resamples=10, tokenizer="ptb")
    assert first.fingerprint["digest"] == second.fingerprint["digest"]
    assert first.fingerprint["digest"] != ptb.fingerprint["digest"]
    assert "PTBTokenizer" in str(ptb.fingerprint["text"])
