"""Many sounds through one model: order, batches, gates, failures, read-ahead."""

import io
import threading
import time
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import soundfile
import torch
from builders import noise, tiny_captioner
from heard import RATE, TONES, knowing_captioner, silence, tone, write_sound
from torch.nn import BatchNorm1d, BatchNorm2d

from earwitness.caption import Decoding
from earwitness.captioning.local import caption_files, caption_segments
from earwitness.captioning.pipeline import CaptionSettings, SoundResult
from earwitness.captioning.read_ahead import End, read_ahead
from earwitness.captioning.segments import NOTHING, Window, Windows
from earwitness.captioning.sources import Source
from earwitness.errors import AudioError, ConfigError


def of_array(name: str, samples: np.ndarray) -> Source:
    return Source(name, (samples, RATE))


def listen(captioner, sources, settings=None, **options) -> list[SoundResult]:
    return [one for some in caption_files(captioner, sources, settings, **options) for one in some]


def wav_bytes(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV")
    return file.getvalue()


def test_results_come_in_the_order_of_the_sources():
    frequencies = [*TONES] * 5
    sources = [of_array(str(i), tone(f, 1 + i % 4)) for i, f in enumerate(frequencies)]
    found = listen(knowing_captioner(), sources, batch_size=3)
    assert [one.name for one in found] == [str(i) for i in range(len(sources))]
    assert [one.segments[0].caption for one in found] == [TONES[f] for f in frequencies]
    assert [one.seconds for one in found] == [1 + i % 4 for i in range(len(sources))]


@pytest.mark.parametrize(("size", "batches"), [(1, [1] * 7), (4, [4, 3]), (50, [7])])
def test_windows_of_several_sounds_share_a_batch(size, batches):
    captioner = knowing_captioner()
    listen(captioner, [of_array(str(i), tone(200, 1.0)) for i in range(7)], batch_size=size)
    assert captioner.batches == batches


def lively_captioner():
    """An untrained real captioner with nearly even odds, whose captions differ."""
    captioner = tiny_captioner(1, guide=None)
    norms = [m for m in captioner.encoder.modules() if isinstance(m, BatchNorm1d | BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        captioner.encode([source.audio[0] for source in varied_sounds(12)])
        for name, weight in captioner.decoder.model.named_parameters():
            weight.mul_(10 if "proj" in name else 1)
    return captioner.eval()


def varied_sounds(count: int) -> list[Source]:
    rng = np.random.default_rng(0)
    sounds = [
        tone(float(rng.uniform(100, 6000)), float(rng.uniform(0.3, 12))) for _ in range(count)
    ]
    return [of_array(str(i), s + noise(len(s) / RATE, i)[: len(s)]) for i, s in enumerate(sounds)]


@pytest.mark.parametrize("decoding", [Decoding(max_new_tokens=8), Decoding(sample=True, seed=3)])
def test_caption_does_not_depend_on_the_batch(decoding):
    captioner, sources = lively_captioner(), varied_sounds(12)
    settings = CaptionSettings(decoding=decoding.model_copy(update={"max_new_tokens": 8}))
    alone = [listen(captioner, [source], settings)[0] for source in sources]
    together = listen(captioner, sources, settings, batch_size=12)
    backwards = listen(captioner, sources[::-1], settings, batch_size=5)[::-1]
    texts = [one.segments[0].caption for one in alone]
    assert len(set(texts)) > (1 if decoding.sample else 8)
    for other in (together, backwards):
        assert [one.segments[0].caption for one in other] == texts
        for left, right in zip(alone, other, strict=True):
            assert left.segments[0].score == pytest.approx(right.segments[0].score, abs=2e-4)


def test_seed_decides_what_is_drawn():
    captioner, sources = lively_captioner(), varied_sounds(6)
    drawn = [
        [
            one.segments[0].caption
            for one in listen(
                captioner,
                sources,
                CaptionSettings(decoding=Decoding(sample=True, seed=seed, max_new_tokens=8)),
            )
        ]
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_long_sound_becomes_segments_that_cover_it():
    parts = [tone(200, 20), tone(700, 15), silence(10), tone(2000, 8.5)]
    found = listen(knowing_captioner(), [of_array("x", np.concatenate(parts))])[0]
    assert not found.whole
    assert found.seconds == 53.5
    assert [s.caption for s in found.segments][:2] == ["a dog barks", "rain falls"]
    assert [s.caption for s in found.segments][-1] == "a siren wails"
    assert found.segments[0].end == 20.0
    assert found.segments[0].start == 0.0
    assert found.segments[-1].end == 53.5
    assert all(left.end == right.start for left, right in pairwise(found.segments))


def test_segments_are_as_fine_as_the_hop():
    samples = np.concatenate([tone(200, 7), silence(6), tone(700, 7)])
    settings = CaptionSettings(windows=Windows(1.0, 1.0, 1.5))
    segments = caption_segments(knowing_captioner(), (samples, RATE), settings)
    assert [(s.start, s.end, s.caption, s.gate) for s in segments] == [
        (0.0, 7.0, "a dog barks", None),
        (7.0, 13.0, NOTHING, "silence"),
        (13.0, 20.0, "rain falls", None),
    ]


def test_overlapping_windows_give_the_same_story():
    samples = np.concatenate([tone(200, 30), tone(700, 33)])
    settings = CaptionSettings(windows=Windows(10.0, 2.5, 15.0))
    segments = caption_segments(knowing_captioner(), (samples, RATE), settings)
    assert [s.caption for s in segments] == ["a dog barks", "rain falls"]
    assert segments[0].end == pytest.approx(30.0, abs=2.5)
    assert segments[-1].end == 63.0


@pytest.mark.parametrize("seconds", [0.05, 14.9, 15.1, 25.0, 30.01])
def test_segments_of_any_length_end_with_the_sound(seconds):
    segments = caption_segments(knowing_captioner(), (tone(200, seconds), RATE))
    assert [s.caption for s in segments] == ["a dog barks"]
    assert (segments[0].start, segments[0].end) == (0.0, pytest.approx(seconds, abs=1e-3))


@pytest.mark.parametrize(("level", "gate"), [(0.0, "silence"), (1e-4, "silence"), (1e-2, None)])
def test_silence_is_not_given_to_the_model(level, gate):
    captioner = knowing_captioner()
    found = listen(captioner, [of_array("x", tone(200, 2, level))])[0].segments[0]
    assert found.gate == gate
    assert captioner.batches == ([] if gate else [1])
    assert found.caption == (NOTHING if gate else "a dog barks")


def test_low_score_becomes_no_distinct_sound():
    sources = [of_array("noise", noise(5)), of_array("tone", tone(200, 5))]
    found = listen(knowing_captioner(), sources, CaptionSettings(min_score=0.5))
    assert (found[0].segments[0].caption, found[0].segments[0].gate) == (NOTHING, "low score")
    assert found[0].segments[0].score < 0.5
    assert found[1].segments[0].gate is None


def test_n_best_is_kept_with_its_scores():
    found = listen(
        knowing_captioner(),
        [of_array("x", tone(200, 3) + tone(700, 3, 0.1))],
        CaptionSettings(decoding=Decoding(n_best=2)),
    )
    assert [c.caption for c in found[0].segments[0].candidates] == ["a dog barks", "rain falls"]
    assert found[0].record("m")["captions"][1]["caption"] == "rain falls"


def test_unreadable_sounds_fail_alone_and_in_their_place(tmp_path):
    good = wav_bytes(tone(200, 40))
    sources = [
        Source("a", wav_bytes(tone(200, 1))),
        Source("missing", tmp_path / "missing.wav"),
        Source("cut", good[: len(good) // 2]),
        Source("text", b"hello"),
        Source("folder", str(tmp_path), "the folder holds nothing"),
        Source("b", wav_bytes(tone(700, 1))),
    ]
    found = listen(knowing_captioner(), sources, batch_size=4)
    assert [one.name for one in found] == [source.name for source in sources]
    assert [one.error is None for one in found] == [True, False, False, False, False, True]
    assert "cut off" in str(found[2].error)
    assert str(found[4].error) == "the folder holds nothing"
    with pytest.raises(AudioError, match="cut off"):
        caption_segments(knowing_captioner(), good[: len(good) // 2])


def test_seconds_reported_are_those_of_the_sound():
    told: list[float] = []
    sources = [of_array("a", tone(200, 35)), of_array("b", silence(4))]
    listen(
        knowing_captioner(),
        sources,
        CaptionSettings(windows=Windows(5.0, 5.0, 5.0)),
        on_seconds=told.append,
    )
    assert sum(told) == pytest.approx(39.0)


def test_batch_that_does_not_fit_is_halved():
    captioner = knowing_captioner()
    whole = captioner.caption_at_once

    def small_memory(waveforms, decoding):
        if len(waveforms) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(waveforms, decoding)

    captioner.caption_at_once = small_memory
    sources = [of_array(str(i), tone(f, 1.0)) for i, f in enumerate([*TONES] * 5)]
    found = listen(captioner, sources, batch_size=10)
    assert [one.segments[0].caption for one in found] == [*TONES.values()] * 5
    assert max(captioner.batches) == 2


def test_window_that_never_fits_is_one_clear_sentence():
    captioner = knowing_captioner()

    def no_memory(waveforms, decoding):
        raise torch.OutOfMemoryError("CUDA out of memory")

    captioner.caption_at_once = no_memory
    with pytest.raises(ConfigError, match="10 s of sound do not fit in memory .* smaller window"):
        listen(captioner, [of_array("x", tone(200, 10))])


def test_batch_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="a batch size of at least 1, got 0"):
        listen(knowing_captioner(), [], batch_size=0)


def test_reading_waits_for_the_model():
    held: list[int] = []

    class Long:
        """A sound of an hour that notes how far it was read."""

        def __init__(self) -> None:
            self.blocks = (tone(200, 2.0) for _ in range(1800))

        def stream(self, *_: object, **__: object) -> Iterator[np.ndarray]:
            for number, block in enumerate(self.blocks):
                held.append(number)
                yield block

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("earwitness.captioning.read_ahead.audio.stream", Long().stream)
        windows = Windows(2.0, 2.0, 2.0)
        arriving = read_ahead([of_array("x", tone(200, 1))], RATE, windows, ahead=4, threads=1)
        assert isinstance(next(arriving)[1], Window)
        time.sleep(0.3)
        assert len(held) < 20
        arriving.close()
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith("earwitness-read")]


def test_read_ahead_hands_over_each_source_in_order(tmp_path):
    sources = [
        Source(str(i), write_sound(tmp_path / f"{i}.wav", tone(200, 0.2 * (i + 1))))
        for i in range(30)
    ]
    items = list(read_ahead(sources, RATE, Windows(), ahead=4, threads=4))
    assert [index for index, item in items if isinstance(item, End)] == list(range(30))
    assert [item.seconds for _, item in items if isinstance(item, End)] == pytest.approx(
        [0.2 * (i + 1) for i in range(30)]
    )


def test_fault_in_a_reader_is_the_error_of_its_sound(monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("a fault of the program")

    monkeypatch.setattr("earwitness.captioning.read_ahead.cut", broken)
    sources = [of_array(name, tone(200, 1)) for name in "xy"]
    items = [item for _, item in read_ahead(sources, RATE, Windows())]
    assert [str(item) for item in items] == [
        f"{name}: unexpected ZeroDivisionError (a fault of the program)" for name in "xy"
    ]
    assert isinstance(items[0].__cause__, ZeroDivisionError)


def test_exit_in_a_reader_ends_the_job(monkeypatch):
    def broken(*_):
        raise SystemExit(3)

    monkeypatch.setattr("earwitness.captioning.read_ahead.cut", broken)
    with pytest.raises(SystemExit):
        list(read_ahead([of_array("x", tone(200, 1))], RATE, Windows()))


def test_half_precision_runs_the_real_model():
    found = listen(
        tiny_captioner(), varied_sounds(3), CaptionSettings(precision="bf16"), batch_size=2
    )
    assert [one.error for one in found] == [None] * 3
