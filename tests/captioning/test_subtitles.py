"""SRT and WebVTT in and out, and sounds between lines of speech."""

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earwitness.captioning.subtitles import (
    Cue,
    Placement,
    Subtitles,
    add_sounds,
    bracketed,
    parse,
    read,
    to_srt,
    to_vtt,
)
from earwitness.errors import DataError

SRT = (
    "1\n00:00:01,000 --> 00:00:02,500\n<i>Hello.</i>\nHow are you?\n\n"
    "2\n01:02:03,004 --> 01:02:05,006\nFine.\n\n"
)
VTT = (
    "WEBVTT\n\nSTYLE\n::cue { color: red }\n\nintro\n00:01.000 --> 00:02.500 align:start line:0\n"
    "Hello.\n\nNOTE a remark\n\n01:02:03.004 --> 01:02:05.006\nFine.\n"
)


def times(subtitles: Subtitles) -> list[tuple[float, float, str]]:
    return [(cue.start, cue.end, cue.text) for cue in subtitles.cues]


def test_srt_is_read_as_written():
    assert times(parse(SRT)) == [
        (1.0, 2.5, "<i>Hello.</i>\nHow are you?"),
        (3723.004, 3725.006, "Fine."),
    ]
    assert to_srt(parse(SRT)) == SRT


@pytest.mark.parametrize(
    "variant",
    [
        SRT.replace("\n", "\r\n"),
        "\ufeff" + SRT,
        SRT.rstrip("\n"),
        SRT.replace("\n\n", "\n\n\n\n"),
        SRT.replace(",", "."),
        SRT.replace("1\n00", "00").replace("2\n01", "01"),
        SRT.replace("\n\n", "\n \n"),
    ],
    ids=["crlf", "mark", "no end", "more empty lines", "points", "no numbers", "blank lines"],
)
def test_srt_of_other_hands_is_read_alike(variant):
    assert [cue[:2] for cue in times(parse(variant))] == [(1.0, 2.5), (3723.004, 3725.006)]


def test_vtt_keeps_styles_names_and_settings():
    subtitles = parse(VTT)
    assert times(subtitles) == [(1.0, 2.5, "Hello."), (3723.004, 3725.006, "Fine.")]
    assert subtitles.cues[0].settings == "align:start line:0"
    written = to_vtt(subtitles)
    assert written.startswith("WEBVTT\n\nSTYLE\n::cue { color: red }\n\nintro\n00:00:01.000 -->")
    assert parse(written) == subtitles


def test_empty_line_inside_a_text_does_not_end_the_cue():
    text = SRT.replace("<i>Hello.</i>\n", "<i>Hello.</i>\n\n")
    assert times(parse(text))[0][2] == "<i>Hello.</i>\nHow are you?"
    assert len(parse(to_srt(parse(text))).cues) == 2


@pytest.mark.parametrize(
    "text", ["hello", "1\n00:00:05,000 --> 00:00:01,000\nBackwards\n", "1\n00:xx --> 1\nNo\n"]
)
def test_text_without_a_readable_cue_is_refused_by_name(text):
    with pytest.raises(DataError, match=r"talk\.srt: .* expected SRT or WebVTT"):
        parse(text, "talk.srt")


@pytest.mark.parametrize("text", ["", "\n\n", "WEBVTT\n"])
def test_subtitles_without_a_cue_are_empty(text):
    assert parse(text).cues == ()


def test_srt_without_empty_lines_between_cues_is_read_alike():
    assert times(parse(SRT.replace("\n\n", "\n"))) == times(parse(SRT))


def test_number_alone_in_a_text_stays_in_it():
    countdown = "1\n00:00:01,000 --> 00:00:02,000\nIn\n3\n\n2\n00:00:03,000 --> 00:00:04,000\n2\n"
    assert [cue.text for cue in parse(countdown).cues] == ["In\n3", "2"]


@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        ("00:00:xx,000 --> 00:00:04,000", "does not start a cue"),
        ("00:00:03,000 -> 00:00:04,000", "does not start a cue"),
        ("00:00:03,000 --> soon", "does not start a cue"),
        ("99999999:00:03,000 --> 99999999:00:04,000", "does not start a cue"),
        ("00:00:09,000 --> 00:00:04,000", "ends before it starts"),
    ],
)
@pytest.mark.parametrize("kind", ["srt", "no empty lines", "vtt"])
def test_bad_cue_among_good_ones_is_named_by_its_line_and_the_others_kept(bad, fault, kind):
    text = (
        "1\n00:00:01,000 --> 00:00:02,000\nOne.\n\n2\nBAD\nTwo.\n\n"
        "3\n00:00:05,000 --> 00:00:06,000\nThree.\n"
    ).replace("BAD", bad)
    line = 6
    if kind == "no empty lines":
        text, line = text.replace("\n\n", "\n"), 5
    elif kind == "vtt":
        text, line = "WEBVTT\n\n" + text.replace(",", "."), 8
        bad = bad.replace(",", ".")
    subtitles = parse(text)
    assert times(subtitles) == [(1.0, 2.0, "One."), (5.0, 6.0, "Three.")]
    assert subtitles.problems == (f"line {line}: {bad!r} {fault}",)


def test_vtt_keeps_its_header_lines():
    text = "WEBVTT - A film\nKind: captions\nLanguage: en\n\n00:01.000 --> 00:02.000\nHello.\n"
    subtitles = parse(text)
    assert times(subtitles) == [(1.0, 2.0, "Hello.")]
    written = to_vtt(subtitles)
    assert written.startswith("WEBVTT - A film\nKind: captions\nLanguage: en\n\n00:00:01.000 -->")
    assert parse(written) == subtitles


def test_vtt_note_between_cues_is_not_part_of_a_text():
    text = "WEBVTT\n\n00:01.000 --> 00:02.000\nOne.\n\nNOTE two\nlines\n\n"
    text += "00:03.000 --> 00:04.000\nTwo."
    subtitles = parse(text)
    assert [cue.text for cue in subtitles.cues] == ["One.", "Two."]
    assert subtitles.problems == ()


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"]
)
def test_bytes_are_read_in_the_encodings_that_players_write(encoding):
    text = SRT.replace("Hello", "H\u00e9llo \u2013 \u201cyou\u201d")
    assert times(read(text.encode(encoding))) == times(parse(text))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300) | st.text(alphabet="0123:.,-> \n\tWEBVTNO", max_size=200))
def test_any_bytes_give_cues_or_one_sentence(content):
    data = content if isinstance(content, bytes) else content.encode()
    subtitles, sentence = Subtitles(()), "talk.srt: line 1"
    try:
        subtitles = read(data, "talk.srt")
    except DataError as error:
        sentence = str(error)
    assert re.match(r"talk\.srt: line \d+", sentence)
    for written in (to_srt(subtitles), to_vtt(subtitles)):
        assert len(parse(written).cues) == len(subtitles.cues)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 10**7), st.integers(0, 10**5), st.sampled_from(["Hi", "a\nb"]))
    )
)
def test_writing_and_reading_give_the_same_cues(spans):
    cues = sorted(
        (Cue(s / 1000, (s + d) / 1000, text) for s, d, text in spans), key=lambda c: c.start
    )
    assert times(parse(to_vtt(cues))) == [(c.start, c.end, c.text) for c in cues]
    assert times(parse(to_srt(cues))) == [(c.start, c.end, c.text) for c in cues]


@pytest.mark.parametrize(
    ("caption", "shown"),
    [
        ("a dog barks", "[dog barks]"),
        ("A dog barks.", "[dog barks]"),
        ("An engine idles and a man speaks", "[engine idles and a man speaks]"),
        ("thunder roars", "[thunder roars]"),
        ("The  wind\nblows", "[wind blows]"),
    ],
)
def test_convention_of_subtitles_for_the_deaf(caption, shown):
    assert bracketed(caption) == shown


spans = st.lists(
    st.tuples(st.integers(0, 60_000), st.integers(1, 8_000)).map(
        lambda span: (span[0] / 1000, (span[0] + span[1]) / 1000)
    ),
    max_size=12,
)


@settings(max_examples=300, deadline=None)
@given(speech=spans, sounds=spans, longest=st.floats(1.0, 20.0), margin=st.floats(0.0, 1.0))
def test_sounds_never_overlap_speech_or_each_other(speech, sounds, longest, margin):
    lines = Subtitles(tuple(Cue(*span, "words") for span in sorted(speech)))
    noises = [Cue(*span, "a dog barks") for span in sounds]
    placement = Placement(longest=longest, margin=margin)
    merged, homeless = add_sounds(lines, noises, placement)
    added = [cue for cue in merged.cues if cue.text == "[dog barks]"]
    assert len(added) + homeless == len(noises)
    assert [cue for cue in merged.cues if cue.text == "words"] == list(lines.cues)
    for cue in added:
        assert all(cue.end <= line.start or line.end <= cue.start for line in lines.cues)
        assert any(s <= cue.start + 1e-3 and cue.end <= e + 1e-3 for s, e in sounds)
        assert placement.shortest <= cue.end - cue.start + 1e-9
        assert cue.end - cue.start <= longest + 2e-3
    assert all(left.end <= right.start for left, right in pairwise(added))


def test_sound_stands_in_the_first_gap_that_is_long_enough():
    speech = Subtitles((Cue(0.0, 2.0, "One."), Cue(2.5, 5.0, "Two."), Cue(9.0, 12.0, "Three.")))
    merged, homeless = add_sounds(speech, [Cue(0.0, 10.0, "a dog barks")])
    assert homeless == 0
    assert times(merged)[2] == (5.1, 8.9, "[dog barks]")


def test_sound_under_unbroken_speech_is_counted():
    speech = Subtitles((Cue(0.0, 30.0, "On and on."),))
    merged, homeless = add_sounds(speech, [Cue(0.0, 10.0, "a dog barks")])
    assert (len(merged.cues), homeless) == (1, 1)


@pytest.mark.parametrize(
    ("caption", "kept"),
    [
        ("a man speaks", False),
        ("people are talking", False),
        ("a man speaks while a dog barks", True),
        ("a dog barks", True),
    ],
)
def test_speech_alone_is_not_announced_beside_its_own_lines(caption, kept):
    speech = Subtitles((Cue(0.0, 2.0, "One."),))
    merged, homeless = add_sounds(speech, [Cue(0.0, 10.0, caption)])
    assert (len(merged.cues) == 2) is kept
    assert homeless == 0
    alone, _ = add_sounds(Subtitles(()), [Cue(0.0, 10.0, caption)])
    assert len(alone.cues) == 1
