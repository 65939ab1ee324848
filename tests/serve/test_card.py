"""What the page says of a sound: the words that are its own, and captions in order."""

import re

import numpy as np
import pytest

from earwitness import audio
from earwitness.captioning.pipeline import SoundResult
from earwitness.captioning.segments import Candidate, Segment
from earwitness.io.shipped import shipped
from earwitness.runtime import RuntimeCaptioner
from earwitness.serve import card

SOUNDS = ("storm", "siren", "clock", "alarm")


@pytest.fixture(scope="module")
def examples():
    folder = shipped("examples")
    assert folder is not None
    return {name: audio.load(folder / f"{name}.flac", 16000) for name in SOUNDS}


@pytest.mark.parametrize(("name", "word"), [("siren", "siren"), ("clock", "ticking")])
def test_guide_words_name_this_sound_and_not_every_sound(examples, name, word):
    captioner = RuntimeCaptioner.load("pocket-lamb")
    others = list(examples.values())
    found = captioner.guide_words(examples[name], 12, others)
    assert word in [one for one, _ in found]
    boosts = [boost for _, boost in found]
    assert boosts == sorted(boosts, reverse=True)
    raw = [{w for w, _ in captioner.guide_words(sound, 12)} for sound in others]
    own = [{w for w, _ in captioner.guide_words(sound, 12, others)} for sound in others]
    shared, left = ({*sets[0]}.intersection(*sets[1:]) for sets in (raw, own))
    assert len(left) == 0
    assert len(shared) > 0


def test_pushed_words_of_an_example_stand_in_order_with_those_of_its_caption_in_bold(examples):
    captioner = RuntimeCaptioner.load("pocket-lamb")
    words = captioner.guide_words(examples["clock"], 12, list(examples.values()))
    heard = SoundResult("a.wav", 10.0, (Segment(0.0, 10.0, "a clock is ticking", 0.5),))
    insight = card.Insight(card.GuideWords(words, 0.0, 10.0))
    html = card.result(heard, examples["clock"], 16000, insight, "m")
    rows = re.findall(r'<li class="(.*?)"><span class="ew-label">(\w+)<.*?>\+([\d.]+)<', html)
    assert [word for _, word, _ in rows] == [word for word, _ in words]
    assert {word for bold, word, _ in rows if bold == "ew-said"} >= {"clock", "ticking"}
    boosts = [float(boost) for *_, boost in rows]
    assert boosts == sorted(boosts, reverse=True)


def test_guide_boosts_are_differences_from_the_mean_of_the_others(examples):
    captioner = RuntimeCaptioner.load("pocket-lamb")
    others = [examples["storm"], examples["clock"]]
    own, first, second = (
        captioner.audio_tokens([sound])[1][0] for sound in (examples["siren"], *others)
    )
    expected = sorted(own - (first + second) / 2, reverse=True)
    best = captioner.guide_words(examples["siren"], 1, others)[0][1]
    assert any(best == pytest.approx(value, abs=1e-4) for value in expected[:40])


@pytest.mark.parametrize(
    ("words", "bold"),
    [(["ticks", "bird"], ["ticks"]), (["steam", "toilet"], []), ([], [])],
)
def test_pushed_words_are_shown_where_the_caption_holds_some(words, bold):
    heard = SoundResult("a.wav", 1.0, (Segment(0.0, 1.0, "A clock ticking.", 0.5),))
    guide = card.GuideWords([(word, 0.1) for word in words], 0.0, 1.0)
    html = card.result(heard, np.zeros(16000, np.float32), 16000, card.Insight(guide), "m")
    found = re.findall(r'<li class="(.*?)"><span class="ew-label">(\w+)<', html)
    assert found == ([("ew-said" if word in bold else "", word) for word in words] if bold else [])


def test_best_captions_are_in_the_order_of_the_number_that_is_shown():
    found = [Candidate("a", 0.4, 0.1), Candidate("b", 0.6, None), Candidate("c", 0.5, 0.3)]
    assert [one.caption for one in card.ordered(found, "")] == ["b", "c", "a"]
    assert [one.caption for one in card.ordered(found, "CLAP (other)")] == ["c", "a", "b"]
