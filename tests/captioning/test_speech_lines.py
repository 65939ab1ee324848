"""Words as lines of subtitles that can be read: nothing is lost and nothing overlaps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earwitness.captioning.speech import RATE, chunks
from earwitness.captioning.speech_lines import READING, ReadablePlacement, Word, lines_of
from earwitness.captioning.subtitles import Cue, Subtitles, add_sounds

TEXT = (
    "The quick brown fox jumps over the lazy dog, and then it runs away. Nobody knows where to, "
    "but the hens are safe for tonight. Shall we go home? Yes, let us go."
)


def spoken(text: str, each: float, start: float = 1.0) -> list[Word]:
    """The words one behind the other, `each` seconds per character."""
    words = []
    for one in text.split():
        words.append(Word(start, start + each * len(one), one))
        start += each * (len(one) + 1)
    return words


def assert_readable(cues: list[Cue], speed: float = READING.speed) -> None:
    for cue in cues:
        lines = cue.text.split("\n")
        assert len(lines) <= 2
        assert max(map(len, lines)) <= 42
        assert len(cue.text) / (cue.end - cue.start) <= speed + 1e-6
    for left, right in zip(cues, cues[1:], strict=False):
        assert right.start >= left.end


def test_lines_of_slow_speech_are_readable_and_hold_every_word_at_its_time() -> None:
    words = spoken(TEXT, 0.07)
    cues, fast = lines_of(words)
    assert fast == 0
    assert_readable(cues)
    assert " ".join(" ".join(cue.text.split()) for cue in cues) == TEXT
    assert cues[0].start == 1.0
    for cue in cues:
        first = next(word for word in words if abs(word.start - cue.start) < 0.05)
        assert cue.text.startswith(first.text)


def test_lines_end_with_sentences_and_before_pauses() -> None:
    cues, _ = lines_of(spoken("This is the first sentence of them. Second one is here.", 0.08))
    assert [cue.text for cue in cues] == [
        "This is the first sentence of them.",
        "Second one is here.",
    ]
    parted = [Word(0.0, 0.5, "Wait"), Word(4.0, 4.5, "what")]
    assert [cue.start for cue in lines_of(parted)[0]] == [0.0, 4.0]


def test_fast_speech_is_shown_longer_and_later_but_never_overlaps() -> None:
    words = spoken(TEXT, 0.055)
    cues, fast = lines_of(words)
    assert fast == 0
    assert_readable(cues)
    assert max(cue.start - 1 for cue in cues[:1]) == 0
    hurried = spoken(" ".join([TEXT] * 6), 0.03)
    cues, fast = lines_of(hurried)
    assert fast > 0
    assert_readable(cues, speed=1000)
    spoken_at = {word.start for word in hurried}
    assert all(min(abs(cue.start - at) for at in spoken_at) <= 2.2 for cue in cues)


@given(
    st.lists(st.tuples(st.floats(0, 3), st.floats(0, 2), st.text("ab,.", min_size=1)), max_size=60)
)
def test_no_words_break_the_limits(parts: list[tuple[float, float, str]]) -> None:
    words, now = [], 0.0
    for pause, length, text in parts:
        words.append(Word(now + pause, now + pause + length, text))
        now += pause + length
    cues, fast = lines_of(words)
    assert_readable(cues, speed=READING.speed if fast == 0 else 1000)
    assert "".join(cue.text for cue in cues).replace("\n", "").replace(" ", "") == "".join(
        word.text for word in words
    )


def test_sounds_between_lines_are_readable_too_and_shortened_to_fit() -> None:
    speech = Subtitles((Cue(0.0, 4.0, "Hello there"), Cue(6.2, 9.0, "Bye")))
    long = "Rain falls onto a hard surface as thunder roars in the distance"
    both, homeless = add_sounds(speech, [Cue(0.0, 9.0, long)], ReadablePlacement())
    assert homeless == 0
    (sound,) = [cue for cue in both.cues if cue.text.startswith("[")]
    assert sound.text == "[rain falls onto a hard surface]"
    assert 4.1 <= sound.start < sound.end <= 6.1
    assert_readable(list(both.cues))
    both, _ = add_sounds(Subtitles(()), [Cue(0.0, 20.0, long)], ReadablePlacement())
    assert both.cues[0].text.replace("\n", " ") == f"[{long.lower()}]"
    assert_readable(list(both.cues))
    both, homeless = add_sounds(speech, [Cue(3.0, 5.2, long)], ReadablePlacement())
    assert homeless == 1


def test_long_sound_is_cut_where_it_is_quiet_and_loses_nothing() -> None:
    random = np.random.default_rng(0)
    sound = random.standard_normal(700 * RATE).astype(np.float32)
    sound[round(290.5 * RATE) : round(291.5 * RATE)] = 0
    parts = list(chunks(np.split(sound, 70)))
    assert np.array_equal(np.concatenate([part for _, part in parts]), sound)
    assert 290.5 < parts[1][0] < 291.5
    assert all(len(part) <= 300 * RATE for _, part in parts)
    starts = np.cumsum([0, *(len(part) for _, part in parts[:-1])]) / RATE
    assert [start for start, _ in parts] == pytest.approx(list(starts))
