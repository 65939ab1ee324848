"""The model's own lowest score, and the numbers that benchmarks/confidence.py finds it by."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import tiny_captioner
from heard import RATE, knowing_captioner, tone
from hypothesis import given, settings
from hypothesis import strategies as st

from earwitness.caption import Caption, Decoding
from earwitness.captioning.choice import ModelChoice
from earwitness.captioning.options import CaptionOptions
from earwitness.captioning.pipeline import gated, settings_for
from earwitness.captioning.segments import NOTHING, Window
from earwitness.errors import CheckpointError
from earwitness.serve.options import request_settings
from earwitness.serve.service import Service
from earwitness.serve.settings import Settings

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def confidence() -> Any:
    sys.path.insert(0, str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("confidence", BENCHMARKS / "confidence.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path.remove(str(BENCHMARKS))
    return module


@pytest.mark.parametrize(("given_score", "expected"), [(None, 0.3), (0.0, 0.0), (0.7, 0.7)])
def test_card_gives_the_lowest_score_where_the_user_gives_none(given_score, expected) -> None:
    captioner = knowing_captioner()
    captioner.card = {"min_score": 0.3}
    options = CaptionOptions(min_score=given_score)
    assert settings_for(options, captioner).min_score == expected
    service = Service(captioner, Settings())
    assert request_settings(service, options).min_score == expected


def test_card_without_a_lowest_score_lets_all_pass() -> None:
    assert knowing_captioner().min_score == 0.0


@pytest.mark.parametrize("value", ["0.3", -0.1, 1.5, True, None, float("nan")])
def test_card_with_a_senseless_lowest_score_is_refused(value: object) -> None:
    captioner = knowing_captioner()
    captioner.card = {"min_score": value}
    with pytest.raises(CheckpointError, match="in its card; expected a number from 0 to 1"):
        _ = captioner.min_score


def test_results_without_a_gate_are_not_mixed_with_those_of_the_model(tmp_path: Path) -> None:
    tiny_captioner().save(tmp_path)
    found = {
        ModelChoice(str(tmp_path), CaptionOptions(min_score=score)).fingerprint(timed=False)
        for score in (None, 0.0, 0.5)
    }
    assert len(found) == 3


def test_gates_of_a_window() -> None:
    window, captioner = Window(RATE, tone(200, 2.0), whole=False), knowing_captioner()
    n_best = captioner.caption_waveforms([window.samples], Decoding(n_best=2))[0]
    assert gated(window, RATE, None, 0.0).gate == "silence"
    heard = gated(window, RATE, n_best, 0.5)
    assert (heard.start, heard.end, heard.caption, heard.gate) == (1.0, 3.0, "a dog barks", None)
    assert gated(window, RATE, n_best[1:2], 0.5).caption == NOTHING
    assert gated(window, RATE, n_best[1:2], 0.5).gate == "low score"


def test_candidates_are_listed_by_the_score_they_show_and_in_a_rerankers_own_order() -> None:
    window = Window(0, tone(200, 2.0), whole=True)
    several = [Caption(text, score, 0.0, 2.0, "m") for text, score in (("a", 0.4), ("b", 0.6))]
    found = gated(window, RATE, several, 0.0)
    assert (found.caption, found.score) == ("a", 0.4)
    assert [one.score for one in found.candidates] == [0.6, 0.4]
    ranked = [replace(one, rerank=number) for one, number in zip(several, (0.9, 0.8), strict=True)]
    assert [one.score for one in gated(window, RATE, ranked, 0.0).candidates] == [0.4, 0.6]


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.sampled_from([0.5, 0.9, 0.95, 1.0]))
def test_threshold_keeps_the_share_and_a_higher_one_does_not(confidence, scores, keep) -> None:
    values = np.array(scores)
    found = confidence.threshold(values, keep)
    assert (values >= found).mean() >= keep - 1e-9
    assert (values >= found + 0.0011).mean() < keep or found + 0.0011 > values.max()


def test_risk_is_that_of_counting(confidence) -> None:
    scores, right = np.array([0.9, 0.1, 0.5, 0.7]), np.array([True, False, False, True])
    assert confidence.risks(scores, right).tolist() == [0.0, 0.0, 1 / 3, 0.5]


def test_ranking_numbers_by_hand(confidence) -> None:
    assert confidence.auroc(np.array([0.5, 0.9]), np.array([0.5, 0.1])) == 0.875
    assert confidence.auroc(np.array([]), np.array([0.5])) is None
    # Ranks 0, 1.5, 1.5, 3 against 0, 2, 1, 3: rho = 0.9487.
    found = confidence.rank_correlation(np.array([1.0, 2, 2, 5]), np.array([1.0, 3, 2, 4]))
    assert found == pytest.approx(0.948683, abs=1e-6)


def test_right_caption_shares_half_of_its_content_words(confidence) -> None:
    assert confidence.is_right("a dog barks", ["dogs are barking", "it rains"])
    assert not confidence.is_right("a cat meows and purrs", ["a cat walks"])
    assert not confidence.is_right("", ["a cat walks"])


@pytest.mark.parametrize(("kind", "slope"), [("white", 0.0), ("pink", -3.01)])
def test_noise_has_its_level_and_slope(confidence, kind: str, slope: float) -> None:
    samples = confidence.noise(kind, -30.0, np.random.default_rng(0))
    assert 20 * np.log10(np.sqrt(np.mean(samples**2.0))) == pytest.approx(-30.0, abs=0.01)
    power = np.abs(np.fft.rfft(samples)) ** 2
    hertz = np.fft.rfftfreq(len(samples), 1 / confidence.RATE)
    octaves = [power[(hertz >= f) & (hertz < 2 * f)].mean() for f in (125, 250, 500, 1000, 2000)]
    assert np.diff(10 * np.log10(octaves)) == pytest.approx([slope] * 4, abs=0.4)
