"""Channels become one without losing a sound: reversed polarity, places in a room, other tracks."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from muxing import Track, mux
from sounds import tone

from earwitness.audio import load, stream
from earwitness.errors import AudioError

RATE = 16000
NOISE = np.random.default_rng(5).uniform(-0.5, 0.5, 5 * RATE).astype(np.float32)


def level(sound: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(sound, dtype=np.float64))))


def test_inverted_stereo_is_the_sound_of_one_channel() -> None:
    """Bit by bit, and in blocks as at once."""
    inverted = np.stack([NOISE, -NOISE], axis=1)
    np.testing.assert_array_equal(load((inverted, RATE), RATE), NOISE)
    blocks = list(stream((inverted, RATE), RATE, 0.5))
    np.testing.assert_array_equal(np.concatenate(blocks), NOISE)


def test_inverted_microphone_of_another_gain_is_heard() -> None:
    sound = load((np.stack([NOISE, -0.7 * NOISE], axis=1), RATE), RATE)
    assert level(sound) == pytest.approx(0.85 * level(NOISE), rel=0.01)


def test_inverted_stretch_is_heard_without_a_click() -> None:
    smooth = tone(RATE, 6.0, hertz=50.0)
    right = np.where((np.arange(len(smooth)) // RATE) % 2 == 1, -smooth, smooth)
    sound = load((np.stack([smooth, right], axis=1), RATE), RATE)
    assert [level(sound[n * RATE : (n + 1) * RATE]) for n in range(6)] == pytest.approx(
        [level(smooth)] * 6, rel=0.02
    )
    assert np.abs(np.diff(sound)).max() < 1.5 * np.abs(np.diff(smooth)).max()


@pytest.mark.parametrize("right", [0.0, 0.5, 1.0, -0.2])
def test_ordinary_stereo_is_the_mean_to_the_last_bit(right: float) -> None:
    other = np.random.default_rng(6).uniform(-0.5, 0.5, len(NOISE))
    for second in (right * NOISE, right * NOISE + other):
        stereo = np.stack([NOISE, second], axis=1).astype(np.float32)
        np.testing.assert_array_equal(load((stereo, RATE), RATE), stereo.mean(axis=1))


def test_many_channels_that_cancel_give_the_loudest() -> None:
    sound = np.stack([NOISE, -1.1 * NOISE, 0.1 * NOISE], axis=1).astype(np.float32)
    np.testing.assert_array_equal(load((sound, RATE), RATE), sound[:, 1])


FIVE_ONE = {"FL": 0.5, "FR": 0.5, "FC": 0.5**0.5, "BL": 0.5**1.5, "BR": 0.5**1.5}


@pytest.mark.parametrize("name", ["x.wav", "x.flac", "x.mka", "x.ac3", "x.m4a"])
@pytest.mark.parametrize("place", FIVE_ONE)
def test_channel_of_a_film_has_the_level_of_its_stereo_version(
    tmp_path: Path, name: str, place: str
) -> None:
    """ITU-R BS.775: the center and the surrounds at -3 dB in left and right, then their mean."""
    samples = np.zeros((48000 * 2, 6), dtype=np.float32)
    samples[:, ["FL", "FR", "FC", "LFE", "BL", "BR"].index(place)] = tone(48000, 2.0)
    codec = {"x.wav": "pcm_s16le", "x.ac3": "ac3", "x.m4a": "aac"}.get(name, "flac")
    layout = "5.1(side)" if codec == "ac3" else "5.1"
    path = mux(tmp_path / name, Track(samples, codec=codec, layout=layout))
    middle = load(path, 48000)[4800:-4800]
    assert level(middle) == pytest.approx(FIVE_ONE[place] * 0.5**1.5, rel=0.03)


def test_low_frequency_channel_alone_is_heard(tmp_path: Path) -> None:
    samples = np.zeros((48000, 6), dtype=np.float32)
    samples[:, 3] = tone(48000, 1.0, hertz=60.0)
    path = mux(tmp_path / "x.wav", Track(samples, layout="5.1"))
    assert level(load(path, 48000)) == pytest.approx(0.5**1.5, rel=0.01)


def test_channels_without_places_are_averaged(tmp_path: Path) -> None:
    noise = np.random.default_rng(2).uniform(-0.5, 0.5, (48000, 4)).astype(np.float32)
    path = tmp_path / "x.wav"
    soundfile.write(path, noise, 48000, subtype="FLOAT")
    np.testing.assert_array_equal(load(path, 48000), noise.mean(axis=1))


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Three tracks of 440, 880 and 1320 Hz; the second is the default."""
    tracks = [
        Track(tone(48000, 2.0, hertz=440.0 * n), language=language, default=n == 2)
        for n, language in ((1, "ger"), (2, "eng"), (3, "fre"))
    ]
    return mux(tmp_path / "x.mkv", *tracks, video=2)


def hertz(sound: np.ndarray) -> float:
    return float(np.abs(np.fft.rfft(sound[:RATE])).argmax())


def test_default_track_is_read_and_the_others_are_noted(film: Path) -> None:
    notes: list[str] = []
    assert hertz(load(film, RATE, note=notes.append)) == pytest.approx(880, abs=2)
    assert notes == [f"{str(film)!r}: track 2 of 3 audio tracks (1 ger, 2 eng, 3 fre)"]


@pytest.mark.parametrize(
    ("track", "expected"),
    [(1, 440), (2, 880), ("3", 1320), ("eng", 880), ("en", 880), ("GER", 440)],
)
def test_track_is_chosen_by_number_or_language(film: Path, track: int | str, expected: int) -> None:
    notes: list[str] = []
    for sound in (
        load(film, RATE, track=track, note=notes.append),
        np.concatenate(list(stream(film.read_bytes(), RATE, 0.5, track=track))),
    ):
        assert hertz(sound) == pytest.approx(expected, abs=2)
    assert notes == []


@pytest.mark.parametrize("track", [0, 4, "rus", ""])
def test_track_that_is_not_there_is_named(film: Path, track: int | str) -> None:
    with pytest.raises(AudioError, match=r"expected 1 to 3 \(1 ger, 2 eng, 3 fre\)") as caught:
        load(film, RATE, track=track)
    assert repr(track) in str(caught.value)


def test_files_and_arrays_of_one_track_have_no_second(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    soundfile.write(path, NOISE, RATE)
    for source in (path, (NOISE, RATE)):
        assert len(load(source, RATE, track=1)) == len(NOISE)
        with pytest.raises(AudioError, match="no audio track 2; expected 1"):
            load(source, RATE, track=2)
