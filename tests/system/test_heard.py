"""A class head beside an encoder, events over time, and captions put in order by what is heard."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from earwitness.caption import NOTHING, Caption, Decoding
from earwitness.captioning.captioner import sound_classes
from earwitness.captioning.heard import EventReranker
from earwitness.encoders.class_head import ClassHead
from earwitness.errors import CheckpointError
from earwitness.models.sound_classes import ClassHeadConfig, Heard, SoundClassifier

LABELS = ("dog_barking", "rain", "owl_hooting")
SENTENCES = (("a dog is barking",), ("rain is falling",), ("an owl is hooting", "an owl hoots"))
WORDS = (("bark", "barks", "barking", "dog", "dogs"), ("rain",), ("hooting", "hoots", "owl"))
OTHERS = tuple(f"other {number}" for number in range(9))
FRAME_RATE = 6.25


def head(temperature: float = 1.0) -> ClassHead:
    """Frames of width 3: class k where channel k is loud, all classes alike where none is."""
    config = ClassHeadConfig(
        dim=3,
        labels=LABELS + OTHERS,
        names=("Bark", "Rain", "Owl", *OTHERS),
        sentences=SENTENCES + tuple((name,) for name in OTHERS),
        words=WORDS + tuple((name,) for name in OTHERS),
        temperature=temperature,
    )
    made = ClassHead(config)
    with torch.no_grad():
        made.linear.weight.zero_()
        made.linear.weight[:3, :3] = 8 * torch.eye(3)
        made.linear.bias.zero_()
    return made.requires_grad_(False).eval()


def classifier() -> SoundClassifier:
    """The same head in numpy."""
    weights = (head().linear.weight.numpy(), head().linear.bias.numpy())
    return SoundClassifier(head().config, *weights, list, 16000)


def frames(*spans: tuple[int, int, int], count: int = 50) -> torch.Tensor:
    """`count` frames that are loud in the channel of each (class, start, stop)."""
    h = torch.zeros(count, 3)
    for number, start, stop in spans:
        h[start:stop, number] = 1.0
    return h


class Classes:
    """A stand-in whose probabilities are given."""

    sample_rate = 16000
    sentences = SENTENCES
    words = tuple(map(frozenset, WORDS))
    least_score = 0.1

    def chance(self, support: float) -> float:
        """Half of the support."""
        return support / 2

    def __init__(self, whole: Sequence[float], parts: Sequence[float]) -> None:
        self.whole, self.parts = np.array([whole]), np.array([parts])

    def heard(self, waveforms: Sequence[np.ndarray]) -> Heard:
        """The same for every sound."""
        whole, parts = (np.repeat(one, len(waveforms), axis=0) for one in (self.whole, self.parts))
        return Heard(whole, parts, [np.zeros((4, 2))] * len(waveforms))

    def span(self, h: np.ndarray, named: np.ndarray) -> tuple[float, float] | None:
        """From a tenth of the first class named, in seconds, to 9 s."""
        return (float(np.flatnonzero(named)[0]) / 10, 9.0) if named.any() else None


class Candidates:
    """A captioner that always has the same candidates."""

    sample_rate = 16000
    decoding = Decoding(n_best=1)

    def __init__(self, *texts: str) -> None:
        self.texts = texts
        self.asked = 0

    def caption_waveforms(
        self, waveforms: Sequence[np.ndarray], decoding: Decoding | None = None
    ) -> list[list[Caption]]:
        assert decoding is not None
        self.asked = decoding.n_best
        row = [Caption(text, 0.5, 0.0, 1.0, "stand-in") for text in self.texts]
        return [row for _ in waveforms]


def best(classes: Classes, *texts: str) -> Caption:
    """The caption chosen among `texts`."""
    return EventReranker(classes).captions(Candidates(*texts), [np.zeros(16000)])[0][0]


def test_padding_does_not_change_what_is_heard() -> None:
    h = frames((1, 0, 20), count=20)
    alone = head()(h[None], torch.ones(1, 20, dtype=torch.bool))
    padded = torch.cat([h, torch.full((5, 3), 9.0)])[None]
    mask = torch.arange(25)[None] < 20
    torch.testing.assert_close(head()(padded, mask), alone)
    assert float(alone.sum()) == pytest.approx(1.0)
    assert int(alone.argmax()) == 1


def test_numpy_computes_what_torch_does() -> None:
    h = torch.randn(2, 9, 3, generator=torch.Generator().manual_seed(0))
    expected = head()(h, torch.ones(2, 9, dtype=torch.bool)).numpy()
    np.testing.assert_allclose(classifier().probabilities(h.numpy()), expected, atol=1e-6)


def test_a_higher_temperature_is_less_sure() -> None:
    h, mask = frames((0, 0, 9), count=9)[None], torch.ones(1, 9, dtype=torch.bool)
    assert head(3.0)(h, mask).max() < head(1.0)(h, mask).max()


def test_events_have_the_borders_of_their_frames() -> None:
    found = classifier().events_of(frames((0, 5, 20), (2, 30, 45)).numpy(), 0.6)
    assert [event.name for event in found] == ["Bark", "Owl"]
    for event, (start, stop) in zip(found, ((5, 20), (30, 45)), strict=True):
        assert event.start_s == pytest.approx(start / FRAME_RATE, abs=0.5)
        assert event.end_s == pytest.approx(stop / FRAME_RATE, abs=0.5)
        assert event.probability > 0.9


def test_nothing_is_an_event_in_frames_without_sound_and_short_clips_are_heard() -> None:
    assert classifier().events_of(frames().numpy(), 0.5) == []
    (event,) = classifier().events_of(frames((1, 0, 2), count=2).numpy(), 0.5)
    assert (event.label, event.start_s, event.end_s) == ("rain", 0.0, 2 / FRAME_RATE)


def test_a_saved_head_is_the_same_and_half_a_head_is_an_error(tmp_path: Path) -> None:
    head(1.5).save(tmp_path)
    loaded = ClassHead.load(tmp_path)
    assert loaded is not None
    assert loaded.config == head(1.5).config
    torch.testing.assert_close(loaded.linear.weight, head().linear.weight)
    assert ClassHead.load(tmp_path / "elsewhere") is None
    (tmp_path / "classes.safetensors").unlink()
    with pytest.raises(CheckpointError, match="classes.safetensors: no such file"):
        ClassHead.load(tmp_path)


def test_a_class_without_a_sentence_is_refused() -> None:
    with pytest.raises(ValidationError, match="a name, words and at least one sentence"):
        ClassHeadConfig(dim=3, labels=("a",), names=("A",), sentences=((),), words=((),))


def test_a_model_without_a_class_head_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no class head|no such"):
        sound_classes(tmp_path)


def test_a_caption_whose_sound_is_not_there_loses() -> None:
    heard = Classes([0.8, 0.1, 0.1], [0.8, 0.1, 0.1])
    chosen = best(heard, "rain falls", "a dog barks", "the rain falls")
    assert chosen.text == "a dog barks"
    assert chosen.rerank == pytest.approx(0.8)


def test_what_is_heard_in_a_part_counts() -> None:
    heard = Classes([0.5, 0.4, 0.1], [0.5, 0.9, 0.1])
    assert (
        best(heard, "a dog barks", "a dog barks as rain falls").text == "a dog barks as rain falls"
    )


def test_the_sentence_of_the_class_is_the_answer_where_no_candidate_names_what_is_heard() -> None:
    heard = Classes([0.1, 0.05, 0.85], [0.1, 0.05, 0.85])
    chosen = best(heard, "a dog barks", "a dog is barking")
    assert (chosen.text, chosen.score, chosen.rerank) == ("an owl is hooting", 0.85, 0.85)
    assert (chosen.model, chosen.end_s) == ("stand-in", 1.0)


def test_a_sound_that_is_surely_heard_is_named_even_where_a_candidate_names_another_one() -> None:
    heard = Classes([0.3, 0.1, 0.6], [0.45, 0.1, 0.6])
    assert best(heard, "a dog barks", "a dog is barking").text == "an owl is hooting"
    assert best(heard, "a dog barks", "an owl hoots as a dog barks").text.startswith("an owl hoots")


def test_the_sentence_of_a_class_has_the_support_of_a_candidate_with_its_words() -> None:
    heard = Classes([0.3, 0.1, 0.6], [0.45, 0.1, 0.8])
    assert best(heard, "a dog barks").rerank == pytest.approx(0.8)


def test_unclear_sounds_keep_the_captioners_own_words() -> None:
    heard = Classes([0.1, 0.1, 0.25], [0.1, 0.1, 0.25])
    assert best(heard, "a dog barks", "a dog is barking").text.startswith("a dog")


def test_at_least_four_candidates_are_asked_for_and_as_many_given_as_wanted() -> None:
    captioner = Candidates("rain falls", "a dog barks")
    reranker = EventReranker(Classes([0.8, 0.1, 0.1], [0.8, 0.1, 0.1]))
    rows = reranker.captions(captioner, [np.zeros(9), np.zeros(9)], Decoding(n_best=2))
    assert captioner.asked == 4
    assert [caption.text for caption in rows[1]] == ["a dog barks", "rain falls"]


def test_the_calibrated_support_is_the_score_and_a_low_one_is_no_distinct_sound() -> None:
    captioner = Candidates("rain falls", "a dog barks")
    for support, text in ((0.8, "a dog barks"), (0.15, NOTHING)):
        classes = Classes([support, 0.0, 0.0], [support, 0.0, 0.0])
        reranker = EventReranker(classes, as_score=True)
        best, second = reranker.captions(captioner, [np.zeros(9)], Decoding(n_best=2))[0]
        assert (best.text, best.score, best.rerank) == (text, support / 2, None)
        assert second.text == "rain falls"


def test_a_caption_says_when_its_sounds_are_heard() -> None:
    classes = Classes([0.1, 0.9, 0.0], [0.1, 0.9, 0.0])
    assert best(classes, "rain is falling").heard == (0.1, 9.0)
    assert best(Classes([0.1] * 3, [0.1] * 3), "music is playing").heard is None


def test_the_span_of_named_classes_is_that_of_their_events() -> None:
    h = frames((0, 10, 20), (1, 30, 40), count=63)
    classes = classifier()
    start, end = classes.span(h.numpy(), np.arange(12) == 1) or (0.0, 0.0)
    assert start == pytest.approx(30 / FRAME_RATE, abs=0.5)
    assert end == pytest.approx(40 / FRAME_RATE, abs=0.5)
    both = classes.span(h.numpy(), np.arange(12) < 2) or (0.0, 0.0)
    assert both[0] == pytest.approx(10 / FRAME_RATE, abs=0.5)
    assert both[1] == end
    assert classes.span(h.numpy(), np.arange(12) == 2) is None


def test_a_chance_keeps_the_order_of_supports_and_is_itself_without_calibration() -> None:
    plain = classifier()
    assert plain.chance(0.3) == pytest.approx(0.3)
    config = plain.config.model_copy(update={"calibration": (0.5, -1.0)})
    changed = replace(plain, config=config)
    chances = [changed.chance(support) for support in (0.0, 0.2, 0.5, 1.0)]
    assert chances == sorted(chances)
    assert chances[2] == pytest.approx(1 / (1 + np.e))
    assert 0 < chances[0] < chances[-1] < 1


def test_a_short_break_does_not_end_an_event_and_a_long_one_does() -> None:
    short, long = frames((0, 5, 12), (0, 16, 24)), frames((0, 5, 12), (0, 30, 40))
    assert [len(classifier().events_of(h.numpy(), 0.9)) for h in (short, long)] == [1, 2]
