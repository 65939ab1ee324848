"""What holds no sound is called so, by the class as by the command line."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from builders import noise, tiny_captioner
from muxing import Track, mux
from sounds import tone

from earwitness import Captioner
from earwitness.audio import load
from earwitness.audio.levels import SILENCE_DB, level_db, sounding, without_offset
from earwitness.caption import NOTHING

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

SILENCES = {
    "zeros": np.zeros(16000),
    "one sample": np.full(1, 0.5),
    "one sample of zero": np.zeros(1),
    "offset": np.full(160000, 0.5),
    "offset with noise": 0.5 + np.random.default_rng(0).uniform(-2e-5, 2e-5, 160000),
}


@pytest.mark.parametrize("name", SILENCES)
@pytest.mark.parametrize("rate", [8000, 16000, 44100, 96000])
def test_silence_in_a_file_is_below_the_gate(tmp_path, name: str, rate: int) -> None:
    path = tmp_path / "x.wav"
    soundfile.write(path, SILENCES[name], rate, subtype="FLOAT")
    for own in (16000, 32000, 48000):
        assert level_db(load(path, own), own) < SILENCE_DB


@pytest.mark.parametrize("offset", [0.0, 0.05, 0.5])
def test_faint_sound_on_an_offset_passes_the_gate(offset: float) -> None:
    sound = (offset + tone(16000, 3.0, level=0.003)).astype(np.float32)
    assert level_db(sound, 16000) == pytest.approx(-53.5, abs=0.2)


def test_a_strong_offset_is_taken_off_and_sounds_without_one_stay_as_they_are() -> None:
    sound = tone(16000, 1.0, level=0.003).astype(np.float32)
    still = without_offset(0.3 + sound, 16000)
    assert still.shape == sound.shape
    assert still.dtype == np.float32
    np.testing.assert_allclose(still[80:-80], sound[80:-80], atol=1e-4)
    assert not still[:80].any()
    for same in (sound, 0.001 + sound, np.zeros(0, np.float32), np.zeros(1, np.float32)):
        assert without_offset(same, 16000) is same


@pytest.mark.parametrize(
    ("levels", "kept"),
    [
        ([0, 0, 0, -20, -90, -20, 0, 0], (3, 6)),
        ([-20, 0, 0, 0], (0, 1)),
        ([0, 0, -59], (2, 3)),
        ([0, 0, -61], (0, 3)),
        ([0], (0, 1)),
    ],
)
def test_silence_at_the_ends_is_left_out(levels, kept) -> None:
    steps = [0.0 if level == 0 else 10 ** (level / 20) for level in levels]
    sound = np.repeat(np.array(steps, np.float32), 1600)
    part = sounding(sound, 16000)
    assert (part.start, part.stop) == (kept[0] * 1600, kept[1] * 1600)
    assert sounding(np.zeros(0, np.float32), 16000) == slice(0, 0)


@pytest.mark.parametrize("name", ["storm", "alarm"])
def test_silence_around_a_sound_changes_neither_caption_nor_times(name: str) -> None:
    captioner = Captioner.load("pocket-lamb")
    sound = load(EXAMPLES / f"{name}.flac", 16000)
    alone = captioner.n_best((sound, 16000), 3)
    rows = captioner.n_best((np.pad(sound, (16000 * 2, 16000 * 3)), 16000), 3)
    assert [(one.text, one.score) for one in rows] == [(one.text, one.score) for one in alone]
    assert {one.end_s for one in rows} == {len(sound) / 16000 + 5}
    for one, same in zip(rows, alone, strict=True):
        assert one.heard == (same.heard and pytest.approx(np.add(same.heard, 2), abs=0.17))


def test_noise_on_an_offset_is_no_engine() -> None:
    faint = np.random.default_rng(0).normal(0, 0.003, 160000).astype(np.float32)
    captioner = Captioner.load("pocket-lamb")
    said = captioner.caption((faint, 16000)).text
    assert captioner.caption((0.3 + faint, 16000)).text == said
    assert "engine" not in said
    assert captioner.events((0.3 + faint, 16000)) == captioner.events((faint, 16000))


def test_click_on_silence_passes_the_gate() -> None:
    sound = np.zeros(16000, dtype=np.float32)
    sound[8000:8010] = 0.9
    assert level_db(sound, 16000) > SILENCE_DB


def test_class_calls_silence_by_its_name() -> None:
    captioner = tiny_captioner()
    sounds = [(SILENCES[name], 16000) for name in SILENCES]
    mixed = [sounds[0], (tone(16000, 2.0), 16000), *sounds[1:]]
    captions = captioner.caption_batch(mixed, batch_size=2)
    assert [c.text == NOTHING for c in captions] == [True, False, *[True] * 4]
    assert captions[1] == captioner.caption((tone(16000, 2.0), 16000))
    assert (captions[0].score, captions[0].end_s) == (0.0, 1.0)


def test_caption_of_a_track(tmp_path: Path) -> None:
    loud, still = noise(2.0), np.zeros(32000, np.float32)
    film = mux(tmp_path / "film.mkv", Track(loud, 16000), Track(still, 16000))
    captioner = tiny_captioner()
    assert captioner.caption(film, track=2).text == NOTHING
    assert captioner.caption(film, track="1").text != NOTHING
    assert [one.text for one in captioner.n_best(film, 2, track=2)] == [NOTHING]
