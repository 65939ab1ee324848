"""Sounds of every kind come out as mono float32 at the asked rate, or as one clear sentence."""

import io
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from sounds import FFMPEG_KINDS, NEEDS_FFMPEG, assert_tone, encode, tone

from earwitness.audio import duration, load, loading, stream

RATES = (8000, 11025, 22050, 44100, 48000, 96000, 192000)


# Formats that store no rate, or few of them; and encodings that are listed but cannot be written.
FIXED_RATES = {"WVE": 8000, "MPC2K": 44100, "XI": 44100}
WIDEBAND = {"ALAC_16", "ALAC_20", "ALAC_24", "ALAC_32", "OPUS", "MPEG_LAYER_III"}
NOT_WRITTEN = {"MPEG_LAYER_I", "MPEG_LAYER_II", "DWVW_12", "DWVW_16", "DWVW_24"}
ENCODINGS = [
    (kind, subtype)
    for kind in sorted(soundfile.available_formats())
    for subtype in sorted(soundfile.available_subtypes(kind))
    if kind != "RAW" and subtype not in NOT_WRITTEN and (kind, subtype) != ("WAV", "MPEG_LAYER_III")
]


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(44100, 2.0), 44100)
    return path


@pytest.mark.parametrize(("kind", "subtype"), ENCODINGS)
def test_every_soundfile_encoding_keeps_the_tone(tmp_path: Path, kind: str, subtype: str) -> None:
    rate = FIXED_RATES.get(kind, 48000 if subtype in WIDEBAND else 8000)
    path = tmp_path / f"tone.{kind.lower()}"
    soundfile.write(path, tone(rate), rate, format=kind, subtype=subtype)
    sound = load(path, 16000)
    assert sound.dtype == np.float32
    assert sound.ndim == 1
    assert_tone(sound, 16000, tolerance=0.05)
    assert len(sound) / 16000 == pytest.approx(duration(path), abs=2e-4)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize(
    ("kind", "subtype"),
    [("WAV", s) for s in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")]
    + [("AIFF", "PCM_S8"), ("FLAC", "PCM_24")],
)
def test_rates_channels_and_sample_formats_keep_the_tone(
    tmp_path: Path, kind: str, subtype: str, channels: int, rate: int
) -> None:
    path = tmp_path / "tone"
    samples = np.stack([tone(rate)] * channels, axis=1)
    soundfile.write(path, samples, rate, format=kind, subtype=subtype)
    sound = load(path, 32000)
    # AIFF pads to an even number of bytes, which libsndfile reads as one more frame.
    assert abs(len(sound) - 32000) <= math.ceil(32000 / rate)
    # Six channels have places in FLAC: left, right, center, LFE and two surrounds.
    level = 0.5 + 0.5 + 2**-0.5 + 0.5**1.5 + 0.5**1.5 if (kind, channels) == ("FLAC", 6) else 1
    assert_tone(sound / np.float32(level), 32000)


@pytest.mark.parametrize("rate", RATES)
def test_tone_survives_to_every_rate(rate: int) -> None:
    assert_tone(load((tone(44100), 44100), rate), rate)


def test_resampling_is_that_of_soxr(wav: Path) -> None:
    samples = soundfile.read(wav, dtype="float32")[0]
    np.testing.assert_array_equal(load(wav, 16000), soxr.resample(samples, 44100, 16000, "HQ"))


def test_same_rate_returns_the_samples_untouched() -> None:
    np.testing.assert_array_equal(load((tone(22050), 22050), 22050), tone(22050))


def test_channels_are_averaged() -> None:
    stereo = np.stack([tone(16000), np.zeros(16000, dtype=np.float32)], axis=1)
    np.testing.assert_allclose(load((stereo, 16000), 16000), tone(16000) / 2, atol=1e-7)


def test_shorter_axis_is_the_channels() -> None:
    stereo = np.random.default_rng(0).uniform(-1, 1, (500, 2)).astype(np.float32)
    np.testing.assert_array_equal(load((stereo.T, 8000), 8000), load((stereo, 8000), 8000))


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("int8", [-128, 0, 64]),
        ("int16", [-(2**15), 0, 2**14]),
        ("int32", [-(2**31), 0, 2**30]),
        ("int64", [-(2**63), 0, 2**62]),
        ("uint8", [0, 128, 192]),
        ("uint16", [0, 2**15, 2**15 + 2**14]),
        ("float16", [-1, 0, 0.5]),
        ("float64", [-1, 0, 0.5]),
        ("longdouble", [-1, 0, 0.5]),
        (">i2", [-(2**15), 0, 2**14]),
    ],
)
def test_arrays_are_scaled_by_the_range_of_their_type(dtype: str, values: list[float]) -> None:
    np.testing.assert_array_equal(load((np.array(values, dtype), 8000), 8000), [-1, 0, 0.5])


def test_path_text_bytes_file_object_and_array_are_the_same_sound(wav: Path) -> None:
    expected = load(wav, 16000)
    with wav.open("rb") as file:
        from_file = load(file, 16000)
    samples = soundfile.read(wav, dtype="int16")[0]
    others = [
        load(str(wav), 16000),
        load(wav.read_bytes(), 16000),
        load(bytearray(wav.read_bytes()), 16000),
        load(io.BytesIO(wav.read_bytes()), 16000),
        load((samples, 44100), 16000),
        from_file,
    ]
    for other in others:
        np.testing.assert_array_equal(other, expected)


def test_file_object_that_cannot_seek_is_read(wav: Path) -> None:
    reader, writer = os.pipe()
    small = wav.with_name("small.wav")
    soundfile.write(small, tone(8000, 0.5), 8000)
    with os.fdopen(writer, "wb") as end:
        end.write(small.read_bytes())
    with os.fdopen(reader, "rb") as pipe:
        np.testing.assert_array_equal(load(pipe, 16000), load(small, 16000))


def test_load_is_deterministic(wav: Path) -> None:
    assert load(wav, 32000).tobytes() == load(wav, 32000).tobytes()


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
@pytest.mark.parametrize("block_seconds", [0.01, 0.3, 1.0, 60.0])
def test_stream_is_load_in_blocks(tmp_path: Path, rate: int, block_seconds: float) -> None:
    path = tmp_path / "noise.flac"
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, (300_001, 2))
    soundfile.write(path, noise, 44100)
    blocks = list(stream(path, rate, block_seconds))
    assert {len(block) for block in blocks[:-1]} <= {round(block_seconds * rate)}
    assert 0 < len(blocks[-1]) <= round(block_seconds * rate)
    np.testing.assert_allclose(np.concatenate(blocks), load(path, rate), atol=1e-4)


def test_stream_decodes_no_further_than_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    scaled: list[int] = []
    original = loading.scaled
    monkeypatch.setattr(loading, "scaled", lambda b: (scaled.append(len(b)), original(b))[1])
    blocks = stream((np.zeros((48000 * 600, 1), dtype=np.int16), 48000), 16000, 1.0)
    next(blocks)
    blocks.close()
    assert sum(scaled) < 48000 * 30


@NEEDS_FFMPEG
@pytest.mark.parametrize("kind", FFMPEG_KINDS)
def test_container_read_through_ffmpeg_keeps_the_tone(tmp_path: Path, kind: str) -> None:
    path = encode(tmp_path / f"tone.{kind}", *FFMPEG_KINDS[kind])
    sound = load(path, 16000)
    assert_tone(sound, 16000, tolerance=0.05)
    assert len(sound) / 16000 == pytest.approx(1.0, abs=0.09)
    assert duration(path) == pytest.approx(len(sound) / 16000, abs=1e-4)


@NEEDS_FFMPEG
@pytest.mark.parametrize("kind", ["m4a", "webm"])
def test_ffmpeg_route_is_the_same_from_bytes_file_object_and_stream(
    tmp_path: Path, kind: str
) -> None:
    path = encode(tmp_path / f"tone.{kind}")
    expected = load(path, 32000)
    np.testing.assert_array_equal(load(path.read_bytes(), 32000), expected)
    np.testing.assert_array_equal(load(io.BytesIO(path.read_bytes()), 32000), expected)
    blocks = list(stream(path, 32000, 0.25))
    assert {len(block) for block in blocks[:-1]} == {8000}
    np.testing.assert_allclose(np.concatenate(blocks), expected, atol=1e-4)


@NEEDS_FFMPEG
def test_ffmpeg_route_mixes_as_the_other_does(tmp_path: Path) -> None:
    path = tmp_path / "six.mka"
    source = tmp_path / "six.wav"
    noise = np.random.default_rng(2).uniform(-0.5, 0.5, (48000, 6))
    soundfile.write(source, noise, 48000, subtype="FLOAT")
    argv = ["ffmpeg", "-nostdin", "-v", "error", "-i", source, "-c:a", "pcm_f32le", path]
    subprocess.run(argv, check=True)
    np.testing.assert_allclose(load(path, 48000), load(source, 48000), atol=1e-6)


@NEEDS_FFMPEG
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("wma_inside.wav", ["-c:a", "wmav2"]),
        ("flac_inside.ogg", ["-c:a", "flac"]),
        ("alac_by_ffmpeg.caf", ["-c:a", "alac"]),
    ],
)
def test_encoding_unknown_to_libsndfile_falls_to_ffmpeg(
    tmp_path: Path, name: str, options: list[str]
) -> None:
    assert_tone(load(encode(tmp_path / name, *options), 16000), 16000, tolerance=0.05)


@NEEDS_FFMPEG
@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3", "matroska"])
def test_file_written_into_a_pipe_without_length_is_read(tmp_path: Path, kind: str) -> None:
    source = encode(tmp_path / "tone.wav")
    argv = ["ffmpeg", "-nostdin", "-v", "error", "-i", source, "-f", kind, "pipe:1"]
    piped = subprocess.run(argv, check=True, capture_output=True).stdout
    assert_tone(load(piped, 16000), 16000, tolerance=0.05)


@NEEDS_FFMPEG
def test_tagless_mp3_of_varying_rate_has_its_decoded_length(tmp_path: Path) -> None:
    """Its length in libsndfile is an estimate from the first frames, here far too long."""
    path = tmp_path / "varying.mp3"
    generator = "anoisesrc=d=3:r=44100,volume='if(lt(t,1),0,0.9)':eval=frame"
    argv = ["ffmpeg", "-nostdin", "-v", "error", "-f", "lavfi", "-i", generator]
    subprocess.run([*argv, "-write_xing", "0", "-q:a", "5", path], check=True)
    assert soundfile.info(path).duration > 3.5
    assert len(load(path, 44100)) / 44100 == duration(path) == pytest.approx(3, abs=0.1)


@NEEDS_FFMPEG
def test_abandoned_stream_leaves_no_file_open(tmp_path: Path) -> None:
    path = encode(tmp_path / "long.m4a", seconds=60)
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else None
    blocks = stream(path, 16000, 0.5)
    next(blocks)
    blocks.close()
    if before is None:
        pytest.skip("needs /proc")
    assert len(os.listdir("/proc/self/fd")) == before


@NEEDS_FFMPEG
def test_film_gives_its_sound(tmp_path: Path) -> None:
    options = ["-f", "lavfi", "-i", "color=d=3:s=32x32", "-c:v", "mpeg4"]
    assert_tone(load(encode(tmp_path / "film.mp4", *options), 16000), 16000, tolerance=0.05)


def test_import_is_light() -> None:
    heavy = ["torch", "transformers", "soundfile", "soxr", "scipy", "av"]
    code = f"import sys, earwitness.audio; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
