"""All that is there is read, whatever the header says; what a header promises in vain is noted."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from muxing import Track, mux
from sounds import tone, wav_bytes

from earwitness.audio import duration, load, stream
from earwitness.errors import AudioError

QUIET_THEN_LOUD = np.concatenate(
    [tone(44100, 2.0, 0.01), np.random.default_rng(0).uniform(-0.9, 0.9, 44100 * 6)]
).astype(np.float32)


def test_tagless_mp3_of_varying_rate_is_read_to_its_end(tmp_path: Path) -> None:
    """Its length by the first frames is wrong in either direction."""
    for samples in (QUIET_THEN_LOUD, QUIET_THEN_LOUD[::-1]):
        track = Track(samples, 44100, "libmp3lame")
        path = mux(tmp_path / "x.mp3", track, options={"write_xing": "0"})
        for source in (path, path.read_bytes(), io.BytesIO(path.read_bytes())):
            assert len(load(source, 16000)) / 16000 == pytest.approx(8.0, abs=0.08)
        assert duration(path) == pytest.approx(8.0, abs=0.08)
        assert sum(map(len, stream(path, 16000, 1.0))) / 16000 == pytest.approx(8.0, abs=0.08)


@pytest.mark.parametrize(
    ("name", "codec", "rates"),
    [
        ("x.mp3", "libmp3lame", (44100, 44100)),
        ("x.mp3", "libmp3lame", (44100, 22050)),
        ("x.opus", "libopus", (48000, 48000)),
        ("x.ogg", "OGG", (44100, 44100)),
        ("x.ogg", "OGG", (44100, 16000)),
        ("x.wav", "WAV", (44100, 44100)),
        ("x.wav", "WAV", (44100, 16000)),
        ("x.wav", "RF64", (44100, 44100)),
        ("x.aiff", "AIFF", (44100, 16000)),
        ("x.au", "AU", (44100, 16000)),
        ("x.m4a", "aac", (44100, 48000)),
        ("x.flac", "flac", (44100, 44100)),
        ("x.oga", "flac", (44100, 16000)),
        ("x.ac3", "ac3", (48000, 48000)),
        ("x.caf", "CAF", (44100, 16000)),
        ("x.flv", "libmp3lame", (44100, 22050)),
        ("x.tta", "tta", (44100, 16000)),
        ("x.wma", "wmav2", (44100, 22050)),
        ("x.wv", "wavpack", (44100, 16000)),
        ("x.mka", "flac", (44100, 16000)),
        ("x.avi", "pcm_s16le", (44100, 44100)),
    ],
)
def test_joined_files_are_read_to_the_end_of_the_last(
    tmp_path: Path, name: str, codec: str, rates: tuple[int, int]
) -> None:
    """Two tones, one behind the other; the second file may have another rate and more channels."""
    joined = b""
    for channels, rate, hertz in zip((1, 2), rates, (440.0, 880.0), strict=True):
        samples = np.stack([tone(rate, 4.0, hertz=hertz)] * channels, axis=1)
        if codec.isupper():
            joined += wav_bytes(samples, rate, format=codec)
            continue
        kind = "ogg" if name.endswith(("opus", "oga")) else None
        part = mux(tmp_path / name, Track(samples, rate, codec), format=kind)
        joined += part.read_bytes()
    sound = load(joined, 16000)
    assert duration(joined) == pytest.approx(8.0, abs=0.15)
    assert len(sound) / 16000 == pytest.approx(8.0, abs=0.15)
    for second, hertz in ((2, 440), (6, 880)):
        spectrum = np.abs(np.fft.rfft(sound[16000 * second : 16000 * (second + 1)]))
        assert spectrum.argmax() == pytest.approx(hertz, abs=2)


def test_a_long_file_joined_to_a_short_one_promises_nothing_for_it(tmp_path: Path) -> None:
    long, short = (
        mux(tmp_path / "x.wma", Track(tone(44100, seconds), 44100, "wmav2")).read_bytes()
        for seconds in (6.0, 2.0)
    )
    for joined in (long + short, short + long):
        assert duration(joined) == pytest.approx(8.0, abs=0.15)


@pytest.mark.parametrize(
    ("name", "codec"), [("x.wma", "wmav2"), ("x.avi", "pcm_s16le"), ("x.avi", "libmp3lame")]
)
def test_a_cut_file_of_a_format_whose_length_is_estimated_is_refused(
    tmp_path: Path, name: str, codec: str
) -> None:
    """FFmpeg goes by the bytes that are there; the header says more."""
    whole = mux(tmp_path / name, Track(tone(44100, 8.0), 44100, codec)).read_bytes()
    assert duration(whole) == pytest.approx(8.0, abs=0.15)
    expected = r"cut off: its header promises 8\.\d+ s, but it holds 4\.\d+ s"
    with pytest.raises(AudioError, match=expected):
        load(whole[: len(whole) * 55 // 100], 16000)


def test_a_length_beyond_any_file_is_one_sentence() -> None:
    contents = bytearray(wav_bytes(tone(16000, 1.0), 16000, format="RF64"))
    contents[20:28] = b"\xff" * 8
    with pytest.raises(AudioError):
        load(bytes(contents[:60]), 16000)


def test_chained_ogg_of_different_codecs_is_read(tmp_path: Path) -> None:
    opus = mux(tmp_path / "x.opus", Track(tone(48000, 2.0), codec="libopus"), format="ogg")
    chained = opus.read_bytes() + wav_bytes(tone(44100, 3.0), 44100, format="OGG")
    assert len(load(chained, 16000)) / 16000 == pytest.approx(5.0, abs=0.05)


SIZES = {"died": 0, "half written": 16000, "open": 0xFFFFFFFF}


def with_sizes(contents: bytes, size: int) -> bytes:
    """A WAV, AIFF, RF64 or AU file of 16-bit mono whose header states `size` bytes of data."""
    data = bytearray(contents)
    if contents.startswith(b".snd"):
        data[8:12] = struct.pack(">I", size)
    elif contents.startswith(b"RIFF"):
        at = data.index(b"data")
        data[4:8] = struct.pack("<I", min(size + 36, 0xFFFFFFFF))
        data[at + 4 : at + 8] = struct.pack("<I", size)
    elif contents.startswith(b"RF64"):
        at = data.index(b"ds64")
        data[at + 8 : at + 24] = struct.pack("<2Q", size + 72, size)
    else:
        at = data.index(b"SSND")
        common = data.index(b"COMM")
        data[4:8] = struct.pack(">I", min(size + 46, 0xFFFFFFFF))
        data[at + 4 : at + 8] = struct.pack(">I", min(size + 8, 0xFFFFFFFF))
        data[common + 10 : common + 14] = struct.pack(">I", min(size // 2, 0x7FFFFFFF))
    return bytes(data)


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "RF64", "AU"])
@pytest.mark.parametrize("size", SIZES)
def test_header_that_was_never_finished_hides_nothing(kind: str, size: str) -> None:
    if (kind, size) == ("RF64", "open"):
        pytest.skip("states its size elsewhere")
    contents = wav_bytes(tone(16000, 3.0), 16000, format=kind, subtype="PCM_16")
    notes: list[str] = []
    sound = load(with_sizes(contents, SIZES[size]), 16000, note=notes.append)
    np.testing.assert_array_equal(sound, load(contents, 16000))
    if size != "open":
        assert "its header states" in notes[0]
        assert "all 3.00 s are read" in notes[0]


def test_chunks_and_padding_behind_the_data_are_no_sound() -> None:
    contents = wav_bytes(tone(16000, 1.0), 16000)
    chunk = b"xtra" + struct.pack("<I", 9000) + bytes(range(1, 226)) * 40
    for rest in (chunk, bytes(9000), b"ID3\x04" + bytes(range(256)) * 40, b"\x01" * 99):
        notes: list[str] = []
        sound = load(contents + rest, 16000, note=notes.append)
        np.testing.assert_array_equal(sound, load(contents, 16000))
        assert notes == []


def test_empty_wav_with_a_chunk_behind_it_holds_no_samples() -> None:
    contents = wav_bytes(tone(16000)[:0], 16000)
    with pytest.raises(AudioError, match="no samples"):
        load(contents + b"note" + struct.pack("<I", 8000) + bytes(range(1, 251)) * 32, 16000)


def test_little_that_is_missing_is_noted(tmp_path: Path) -> None:
    path = mux(tmp_path / "x.mka", Track(tone(48000, 20.0)))
    contents = path.read_bytes()
    notes: list[str] = []
    sound = load(contents[: round(0.97 * len(contents))], 16000, note=notes.append)
    assert len(sound) / 16000 == pytest.approx(0.97 * 20, abs=0.1)
    assert "promises 20.0" in notes[0]


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "AIFF"])
def test_ordinary_files_have_the_samples_of_libsndfile(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    noise = np.random.default_rng(3).uniform(-0.9, 0.9, (500_000, 2))
    soundfile.write(path, noise, 44100, format=kind)
    notes: list[str] = []
    expected = soundfile.read(path, dtype="float32")[0].mean(axis=1)
    np.testing.assert_array_equal(load(path, 44100, note=notes.append), expected)
    assert notes == []


def test_opus_has_the_samples_of_libopus(tmp_path: Path) -> None:
    """FFmpeg's own decoder has others: noise is filled in by another generator."""
    path = tmp_path / "x.opus"
    noise = np.random.default_rng(4).uniform(-0.5, 0.5, 48000 * 3)
    soundfile.write(path, noise, 48000, format="OGG", subtype="OPUS")
    np.testing.assert_array_equal(load(path, 48000), soundfile.read(path, dtype="float32")[0])


def test_mp3_has_the_samples_of_libsndfile_but_for_rounding(tmp_path: Path) -> None:
    path = tmp_path / "x.mp3"
    soundfile.write(path, tone(48000, 3.0), 48000, format="MP3")
    expected = soundfile.read(path, dtype="float32")[0]
    np.testing.assert_allclose(load(path, 48000), expected, atol=1e-5)


def test_damaged_mp3_writes_nothing_to_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    contents = bytearray(wav_bytes(tone(44100, 20.0), 44100, format="MP3"))
    contents[3000:4500] = bytes(1500)
    contents[8000:8500] = b"\xff" * 500
    path = tmp_path / "x.mp3"
    path.write_bytes(contents)
    assert len(load(path, 16000)) / 16000 == pytest.approx(20.0, abs=0.8)
    assert capfd.readouterr() == ("", "")
