"""Cutting while decoding, levels, and segments without gaps."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earwitness.captioning.segments import (
    NOTHING,
    Segment,
    Windows,
    cover,
    cut,
    level_db,
    merge,
    says_the_same,
    summary,
)
from earwitness.errors import ConfigError

RATE = 100


def blocks_of(samples: np.ndarray, size: int) -> list[np.ndarray]:
    return [samples[i : i + size] for i in range(0, len(samples), size)]


def segment(start: float, end: float, caption: str, score: float | None = 0.5, gate=None):
    return Segment(float(start), float(end), caption, score, gate)


@settings(max_examples=150, deadline=None)
@given(
    total=st.integers(1, 3000),
    block=st.integers(1, 700),
    window=st.integers(10, 400),
    hop_share=st.floats(0.1, 1.0),
    whole_factor=st.floats(1.0, 3.0),
)
def test_windows_are_slices_that_leave_nothing_out(total, block, window, hop_share, whole_factor):
    samples = np.arange(total, dtype=np.float32)
    plan = Windows(window / RATE, window * hop_share / RATE, window * whole_factor / RATE)
    found = list(cut(iter(blocks_of(samples, block)), RATE, plan))
    heard = np.zeros(total, dtype=bool)
    for one in found:
        stop = one.start + len(one.samples)
        np.testing.assert_array_equal(one.samples, samples[one.start : stop])
        heard[one.start : stop] = True
    assert heard.all()
    if total <= round(plan.whole * RATE):
        assert len(found) == 1
        assert found[0].whole
    else:
        assert {len(one.samples) for one in found} == {window}
        assert not any(one.whole for one in found)
        starts = [one.start for one in found]
        hop = max(1, round(plan.hop * RATE))
        assert starts[:-1] == [k * hop for k in range(len(starts) - 1)]
        assert starts[-1] == total - window


def test_windows_do_not_depend_on_the_blocks():
    samples = np.arange(1234, dtype=np.float32)
    plan = Windows(2.0, 1.5, 3.0)
    found = [list(cut(iter(blocks_of(samples, size)), RATE, plan)) for size in (1, 77, 5000)]
    assert [w.start for w in found[0]] == [w.start for w in found[1]] == [w.start for w in found[2]]


def test_long_sound_holds_two_windows_and_a_block():
    held = []

    def endless():
        for k in range(200):
            held.append(k)
            yield np.zeros(RATE, dtype=np.float32)

    for count, _ in enumerate(cut(endless(), RATE, Windows(10.0, 10.0, 15.0))):
        assert len(held) <= 10 * count + 16


@pytest.mark.parametrize(
    ("window", "hop", "whole"),
    [
        (0.0, 0.0, 10.0),
        (10.0, 11.0, 30.0),
        (10.0, 0.0, 30.0),
        (10.0, 10.0, 5.0),
        (10.0, 5.0, math.inf),
    ]
    + [(math.nan, 1.0, 2.0), (10.0, math.nan, 30.0), (-1.0, -1.0, 3.0)],
)
def test_windows_that_leave_gaps_are_refused(window, hop, whole):
    with pytest.raises(ConfigError, match="expected .*, got"):
        Windows(float(window), float(hop), float(whole))


def test_level_of_a_full_sine_is_3_db_below_full_scale():
    sine = np.sin(2 * np.pi * 5 * np.arange(1000) / 1000).astype(np.float32)
    assert level_db(np.tile(sine, 8), 8000) == pytest.approx(-3.01, abs=0.05)


def test_level_is_that_of_the_loudest_tenth_of_a_second():
    sound = np.zeros(16000 * 10, dtype=np.float32)
    sound[48000:49600] = 0.01
    assert level_db(sound, 16000) == pytest.approx(-40.0, abs=0.1)
    assert level_db(np.zeros(500, dtype=np.float32), 16000) == -math.inf


@settings(max_examples=100, deadline=None)
@given(st.integers(31, 5000), st.integers(10, 300), st.floats(0.1, 1.0))
def test_segments_touch_and_cover_the_sound(total, window, hop_share):
    plan = Windows(window / 10, window * hop_share / 10, window / 10)
    found = list(cut(iter([np.zeros(total, dtype=np.float32)]), 10, plan))
    covering = cover([segment(w.start / 10, (w.start + len(w.samples)) / 10, "x") for w in found])
    assert covering[0].start == 0.0
    assert covering[-1].end == pytest.approx(total / 10)
    assert all(left.end == right.start for left, right in pairwise(covering))
    assert all(one.start <= one.end for one in covering)


def test_border_lies_halfway_through_an_overlap():
    covering = cover([segment(0, 10, "a"), segment(5, 15, "b"), segment(8, 18, "c")])
    assert [(s.start, s.end) for s in covering] == [(0, 7.5), (7.5, 11.5), (11.5, 18)]


def test_neighbors_meet_where_their_sounds_start_or_end():
    rain, more = segment(0, 10, "rain falls"), segment(20, 30, "rain falls again")
    siren = replace(segment(10, 20, "a siren wails"), heard=(12.3, 17.9))
    covering = cover([rain, siren, more])
    assert [(s.start, s.end) for s in covering] == [(0, 12.3), (12.3, 17.9), (17.9, 30)]
    dog = replace(segment(0, 10, "a dog barks"), heard=(1.0, 3.3))
    assert [s.start for s in cover([dog, siren])] == [0, 7.8]


@given(
    st.lists(st.tuples(st.floats(0, 5), st.floats(0.1, 5), st.booleans()), min_size=1, max_size=6)
)
def test_segments_with_known_times_still_touch(times):
    found = [
        replace(segment(n * 10, n * 10 + 10, str(n)), heard=(n * 10 + a, n * 10 + a + b))
        if known
        else segment(n * 10, n * 10 + 10, str(n))
        for n, (a, b, known) in enumerate(times)
    ]
    covering = cover(found)
    assert (covering[0].start, covering[-1].end) == (0, 10 * len(times))
    assert all(left.end == right.start for left, right in pairwise(covering))
    assert all(one.start <= one.end for one in covering)


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("a dog barks", "the dog is barking", True),
        ("A dog barks.", "dogs bark", True),
        ("a man is running", "a man runs", True),
        ("a dog barks", "a cat meows", False),
        ("a man speaks and then a dog barks", "a dog barks and then a man speaks", False),
        ("rain falls", "rain falls on a roof", False),
        ("birds sing", "birds singing", True),
    ],
)
def test_same_words_but_for_endings_say_the_same(left, right, same):
    assert says_the_same(segment(0, 1, left), segment(1, 2, right)) is same


def test_merging_keeps_the_surest_words_and_the_mean_score():
    merged = merge(
        [segment(0, 10, "a dog barks", 0.4), segment(10, 15, "dogs bark", 0.7)]
        + [segment(15, 25, "rain falls", 0.5), segment(25, 30, "a dog barks", 0.1)]
    )
    assert [(s.start, s.end, s.caption) for s in merged] == [
        (0, 15, "dogs bark"),
        (15, 25, "rain falls"),
        (25, 30, "a dog barks"),
    ]
    assert merged[0].score == pytest.approx((0.4 * 10 + 0.7 * 5) / 15)


def test_silence_and_doubt_stay_apart():
    merged = merge(
        [segment(0, 10, NOTHING, None, "silence"), segment(10, 20, NOTHING, None, "silence")]
        + [segment(20, 30, NOTHING, 0.01, "low score")]
    )
    assert [(s.end, s.gate) for s in merged] == [(20, "silence"), (30, "low score")]


def test_summary_tells_each_thing_once_in_order():
    segments = [segment(0, 1, "rain falls"), segment(1, 2, "a dog barks")]
    segments += [segment(2, 3, NOTHING, None, "silence"), segment(3, 4, "rain falling", 0.1)]
    text, score = summary(segments)
    assert text == "rain falls; a dog barks"
    assert score == pytest.approx((0.5 + 0.5 + 0.1) / 3, abs=1e-4)


def test_summary_of_closed_gates_says_so():
    assert summary([segment(0, 1, NOTHING, None, "silence")]) == (NOTHING, None)
