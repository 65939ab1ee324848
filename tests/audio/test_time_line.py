"""Every second is where the file's time stamps put it."""

from pathlib import Path

import numpy as np
import pytest
from muxing import Track, mux
from sounds import tone

from earwitness.audio import duration, load

RATE = 16000


def spans(sound: np.ndarray, rate: int = RATE, level: float = 0.1) -> list[tuple[float, float]]:
    """From where to where the sound is louder than `level`, in seconds; rests below 0.1 s count."""
    loud = np.flatnonzero(np.abs(sound) > level) / rate
    breaks = np.flatnonzero(np.diff(loud) > 0.1)
    starts = [loud[0], *loud[breaks + 1]]
    return list(zip(starts, [*loud[breaks], loud[-1]], strict=True))


def assert_spans(path: Path, *expected: tuple[float, float]) -> None:
    found = spans(load(path, RATE))
    assert len(found) == len(expected)
    for span, wanted in zip(found, expected, strict=True):
        assert span == pytest.approx(wanted, abs=0.08)


@pytest.mark.parametrize(
    ("name", "codec"),
    [("x.mkv", "libopus"), ("x.mp4", "aac"), ("x.mov", "alac"), ("x.ts", "mp2")],
)
def test_sound_that_starts_late_in_a_video_begins_with_silence(
    tmp_path: Path, name: str, codec: str
) -> None:
    path = mux(tmp_path / name, Track(tone(48000, 3.0), codec=codec, start=5.0), video=10)
    assert_spans(path, (5.0, 8.0))
    assert duration(path) == pytest.approx(8.0, abs=0.1)


@pytest.mark.parametrize(
    ("name", "codec"),
    [("x.mkv", "flac"), ("x.mkv", "ac3"), ("x.mp4", "aac"), ("x.ts", "mp2"), ("x.nut", "flac")],
)
@pytest.mark.parametrize("video", [0.0, 30.0])
def test_hole_stays_a_hole(tmp_path: Path, name: str, codec: str, video: float) -> None:
    track = Track(tone(48000, 4.0), codec=codec, hole=(2.0, 20.0))
    assert_spans(mux(tmp_path / name, track, video=video), (0.0, 2.0), (22.0, 24.0))


def test_offset_of_the_whole_file_is_no_silence(tmp_path: Path) -> None:
    track = Track(tone(48000, 2.0), codec="mp2", start=100.0)
    assert_spans(mux(tmp_path / "x.ts", track), (0.0, 2.0))


def test_jitter_of_time_stamps_neither_drops_nor_inserts_a_sample(tmp_path: Path) -> None:
    """Time stamps in whole milliseconds, as Matroska has them, of frames of 21.33 ms."""
    samples = tone(48000, 20.0)
    path = mux(tmp_path / "x.mkv", Track(samples))
    np.testing.assert_allclose(load(path, 48000), samples, atol=1e-4)


def test_clock_that_jumps_where_recordings_were_joined_drops_nothing(tmp_path: Path) -> None:
    first = mux(tmp_path / "a.ts", Track(tone(48000, 3.0), codec="mp2"))
    late = mux(tmp_path / "b.ts", Track(tone(48000, 3.0), codec="mp2", start=4000.0))
    path = tmp_path / "joined.ts"
    for parts in ([first, late], [late, first]):
        path.write_bytes(b"".join(part.read_bytes() for part in parts))
        assert len(load(path, RATE)) / RATE == pytest.approx(6.0, abs=0.2)


def test_encoder_delay_is_trimmed(tmp_path: Path) -> None:
    click = np.zeros(48000, dtype=np.float32)
    click[24000:24048] = 0.9
    for name, codec in (("x.mp3", "libmp3lame"), ("x.m4a", "aac"), ("x.webm", "libopus")):
        sound = load(mux(tmp_path / name, Track(click, codec=codec)), 48000)
        assert np.abs(sound).argmax() == pytest.approx(24024, abs=60)
