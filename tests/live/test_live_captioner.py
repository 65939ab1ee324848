"""The live captioner: what it reports, when, and that it holds no more than the last seconds."""

import pickle
from collections.abc import Sequence

import numpy as np
import pytest

from earwitness.caption import Caption, Decoding
from earwitness.captioning.pipeline import CaptionSettings
from earwitness.errors import ConfigError
from earwitness.live.activity import Activity
from earwitness.live.captioner import LiveCaptioner, LiveSettings
from earwitness.live.filters import Filter, class_head, wanted_sounds
from earwitness.live.records import Report
from earwitness.models.sound_events import SoundEvent

RATE = 16000


class Says:
    """Captions with the length of what it gets, or always the same."""

    name, sample_rate, max_seconds = "says", RATE, 30.0

    def __init__(self, text: str = "") -> None:
        self.text, self.clips = text, []
        self.decoding = Decoding()

    def caption_waveforms(self, waveforms: Sequence[np.ndarray], decoding: object = None) -> list:
        self.clips += [len(one) / RATE for one in waveforms]
        text = self.text or f"sound number {len(self.clips)}"
        return [[Caption(text, 0.5, 0.0, len(one) / RATE, "says")] for one in waveforms]


class Loud:
    """An event from the first to the last loud sample of each run of them."""

    sample_rate = RATE

    def __init__(self) -> None:
        self.longest = 0

    def events(self, waveform: np.ndarray, threshold: float = 0.5) -> list[SoundEvent]:
        self.longest = max(self.longest, len(waveform))
        steps = np.abs(waveform[: len(waveform) // 160 * 160]).reshape(-1, 160).max(1) > 0.02
        edges = np.flatnonzero(np.diff(np.concatenate([[0], steps, [0]]).astype(int)))
        return [
            SoundEvent("Bang", "bang", a / 100, b / 100, 0.9)
            for a, b in zip(edges[::2], edges[1::2], strict=True)
        ]


def stream(*parts: tuple[float, float]) -> np.ndarray:
    """Noise of (seconds, level), one behind the other."""
    random = np.random.default_rng(0)
    clips = [0.1 * level * random.standard_normal(round(s * RATE)) for s, level in parts]
    return np.concatenate(clips).astype(np.float32)


def heard(live: LiveCaptioner, sound: np.ndarray, piece: float = 0.1) -> list[tuple[float, Report]]:
    """Each report with the second of the stream at which it came."""
    size, found = round(piece * RATE), []
    for start in range(0, len(sound), size):
        found += [(live.seconds, one) for one in live.feed(sound[start : start + size])]
    return found + [(live.seconds, one) for one in live.finish()]


def test_caption_comes_within_two_seconds_of_the_end_of_a_sound() -> None:
    live = LiveCaptioner(Says(), None)
    found = heard(live, stream((5, 0), (1.5, 1), (6, 0), (3, 1), (5, 0)))
    assert [(one.start, one.end) for _, one in found] == [
        pytest.approx((5.0, 6.5), abs=0.11),
        pytest.approx((12.5, 15.5), abs=0.11),
    ]
    assert all(0 < at - (one.end or 0) <= 1.0 for at, one in found)


def test_sound_that_goes_on_is_captioned_every_n_seconds_while_it_says_something_new() -> None:
    long = stream((2, 0), (25, 1), (3, 0))
    found = heard(LiveCaptioner(Says(), None, LiveSettings(every=8.0)), long)
    assert [round(one.start) for _, one in found] == [2, 10, 18, 26]
    same = heard(LiveCaptioner(Says("rain falls"), None, LiveSettings(every=8.0)), long)
    assert [one.text for _, one in same] == ["rain falls"]
    apart = stream((1, 0), (1, 1), (4, 0), (1, 1), (2, 0))
    assert len(heard(LiveCaptioner(Says("a dog barks"), None), apart)) == 2


def test_steady_noise_becomes_the_background_that_a_bark_stands_out_of() -> None:
    hum, bark = stream((60, 0.02)), stream((0.5, 1))
    sound = np.concatenate([hum, bark, hum[: 5 * RATE]])
    activity = Activity(RATE)
    found = [
        one for start in range(0, len(sound), 800) for one in activity.feed(sound[start:][:800])
    ]
    assert (found[-1].start / RATE, found[-1].end / RATE) == pytest.approx((60, 60.5), abs=0.11)


def test_events_are_reported_at_their_start_and_within_two_seconds_of_their_end() -> None:
    live = LiveCaptioner(Says(), Loud(), LiveSettings(captions=False))
    found = heard(live, stream((4, 0), (2, 1), (3, 0), (6, 1), (3, 0)))
    assert [one.kind for _, one in found] == ["start", "end", "start", "end"]
    (begun, start), (over, end), _, (_, last) = found
    assert start.start == pytest.approx(4, abs=0.02)
    assert begun - 4 <= 1.1
    assert (end.start, end.end) == pytest.approx((4, 6), abs=0.02)
    assert over - 6 <= 2
    assert (last.start, last.end) == pytest.approx((9, 15), abs=0.02)


def test_pauses_below_half_a_second_do_not_end_an_event_and_the_end_of_the_stream_does() -> None:
    live = LiveCaptioner(Says(), Loud(), LiveSettings(captions=False))
    found = heard(live, stream((2, 0), (1, 1), (0.3, 0), (1, 1)), piece=0.03)
    assert [one.kind for _, one in found] == ["start", "end"]
    assert (found[1][1].start, found[1][1].end) == pytest.approx((2, 4.3), abs=0.05)


@pytest.mark.parametrize("piece", [0.013, 0.5, 7.0])
def test_reports_do_not_depend_on_the_pieces_in_which_the_sound_comes(piece: float) -> None:
    sound = stream((3, 0), (2, 1), (4, 0.001), (14, 0.5), (3, 0))
    whole = [one for _, one in heard(LiveCaptioner(Says(), Loud()), sound, 0.5)]
    found = [one for _, one in heard(LiveCaptioner(Says(), Loud()), sound, piece)]
    assert [(one.kind, one.start, one.end) for one in found] == [
        (one.kind, one.start, one.end) for one in whole
    ]


def test_only_the_last_seconds_are_held() -> None:
    captioner, classes = Says(), Loud()
    live = LiveCaptioner(captioner, classes)
    for _ in range(8):
        live.feed(stream((10, 0.5)))
    assert len(pickle.dumps(live._tail)) + len(pickle.dumps(live._activity)) <= 2 * 4 * 13 * RATE
    assert classes.longest <= 3 * RATE
    assert max(captioner.clips) <= 10.9


def test_gap_ends_what_is_open_and_moves_the_clock() -> None:
    live = LiveCaptioner(Says(), Loud())
    live.feed(stream((1, 0), (2, 1)))
    assert [one.kind for one in live.skip(100.0)] == ["caption", "end"]
    found = heard(live, stream((1, 0), (1, 1), (3, 0)))
    times = {one.kind: one.start for _, one in found}
    assert times == {kind: pytest.approx(104, abs=0.11) for kind in ("start", "end", "caption")}


def test_low_scores_and_silence_give_no_caption() -> None:
    captioner = Says()
    settings = LiveSettings(CaptionSettings(min_score=0.9))
    live = LiveCaptioner(captioner, None, settings)
    assert heard(live, stream((1, 0), (1, 1), (2, 0))) == []
    assert len(captioner.clips) == 1
    assert heard(LiveCaptioner(captioner, Loud()), stream((30, 0.0001))) == []
    assert len(captioner.clips) == 1


@pytest.fixture(scope="module")
def classes() -> object:
    from earwitness import Captioner

    return class_head(Captioner.load("pocket-lamb"))


def test_names_of_sounds_find_their_classes(classes) -> None:
    found = wanted_sounds("baby crying, dog barking,train horn", classes)
    assert [one.names for one in found] == [("Baby cry, infant cry",), ("Bark",), ("Train horn",)]
    (alarm,) = wanted_sounds("burglar alarm", classes)
    assert "Alarm" in alarm.names
    with pytest.raises(ConfigError, match="the model knows no sound 'quasar'; expected"):
        wanted_sounds("quasar", classes)
    with pytest.raises(ConfigError, match="expected names of sounds"):
        wanted_sounds(" , ", classes)


def event(kind: str, start: float, label: str = "bark", text: str = "Bark") -> Report:
    end = None if kind == "start" else start + 1.0
    return Report(kind, float(start), end, text, 0.8, label)


def test_filter_passes_wanted_sounds_and_the_end_of_what_it_passed(classes) -> None:
    chosen = Filter(wanted_sounds("dog barking", classes))
    assert chosen.passes(event("start", 1))
    assert chosen.passes(event("end", 1))
    assert not chosen.passes(event("end", 1))
    assert not chosen.passes(event("start", 2, "rain", "Rain"))
    assert not chosen.passes(event("end", 2, "rain", "Rain"))
    assert chosen.passes(Report("caption", 3.0, 4.0, "a dog is barking loudly", 0.5))
    assert not chosen.passes(Report("caption", 3.0, 4.0, "a dog pants", 0.5))


def test_cool_down_passes_a_sound_once_and_forgets_old_ones() -> None:
    chosen = Filter(cool_down=60.0)
    starts = [chosen.passes(event("start", second)) for second in range(0, 200, 10)]
    assert [10 * n for n, passed in enumerate(starts) if passed] == [0, 60, 120, 180]
    for second in range(200, 4000, 5):
        chosen.passes(Report("caption", float(second), second + 1.0, f"sound {second}", 0.5))
    assert len(chosen._passed) <= 13
