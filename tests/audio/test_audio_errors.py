"""Whatever is no sound, or not all of one, is refused with one sentence; limits hold."""

import io
import math
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sounds import FFMPEG_KINDS, NEEDS_FFMPEG, encode, half, tone, wav_bytes

from earwitness.audio import decoding, load, stream
from earwitness.errors import AudioError, AudioTooLargeError


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(44100, 2.0), 44100)
    return path


@NEEDS_FFMPEG
def test_ffmpeg_opens_nothing_but_the_file_itself(tmp_path: Path) -> None:
    wav = encode(tmp_path / "secret.wav")
    for name, text in {
        "list.m4a": f"ffconcat version 1.0\nfile '{wav.name}'\n",
        "list.mp4": f"#EXTM3U\n#EXTINF:1,\n{wav.name}\n#EXT-X-ENDLIST\n",
    }.items():
        playlist = tmp_path / name
        playlist.write_text(text)
        with pytest.raises(AudioError, match="not a sound"):
            load(playlist, 16000)


def zipped() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("tone.wav", wav_bytes(tone(8000), 8000))
    return target.getvalue()


def mid(value: float) -> np.ndarray:
    samples = tone(16000)
    samples[8000] = value
    return samples


BAD_FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty.wav": (lambda: b"", "empty"),
    "words.wav": (lambda: b"this is no sound\n" * 50, "not a sound"),
    "words.mp3": (lambda: b"this is no sound\n" * 50, "not a sound"),
    "words.gsm": (lambda: b"this is no sound\n" * 50, "not a sound"),
    "words.vox": (lambda: b"this is no sound\n" * 50, "not a sound"),
    "words.raw": (lambda: b"this is no sound\n" * 50, "not a sound"),
    "archive.wav": (zipped, "not a sound"),
    "picture.wav": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(200), "not a sound"),
    "zeros.wav": (lambda: bytes(5000), "not a sound"),
    "one_byte.wav": (lambda: b"R", "not a sound"),
    "header_only.wav": (lambda: wav_bytes(tone(8000), 8000)[:20], "damaged"),
    "no_samples.wav": (lambda: wav_bytes(tone(8000)[:0], 8000), "no samples"),
    "half.wav": (lambda: half(wav_bytes(tone(8000), 8000)), "promises 1.00 s, but it holds 0.50 s"),
    "half_float.wav": (lambda: half(wav_bytes(tone(8000), 8000, subtype="FLOAT")), "promises"),
    "half.rf64": (lambda: half(wav_bytes(tone(8000), 8000, format="RF64")), "promises"),
    "half.w64": (lambda: half(wav_bytes(tone(8000), 8000, format="W64")), "promises"),
    "half.aiff": (lambda: half(wav_bytes(tone(8000), 8000, format="AIFF")), "promises"),
    "half.au": (lambda: half(wav_bytes(tone(8000), 8000, format="AU")), "promises"),
    "half.caf": (lambda: half(wav_bytes(tone(8000), 8000, format="CAF")), "'half.caf'"),
    "half.flac": (lambda: half(wav_bytes(tone(8000), 8000, format="FLAC")), "'half.flac'"),
    "half.mp3": (lambda: half(wav_bytes(tone(8000, 4.0), 8000, format="MP3")), "promises"),
    "nan.wav": (lambda: wav_bytes(mid(math.nan), 16000, subtype="FLOAT"), "not finite"),
    "inf.wav": (lambda: wav_bytes(mid(math.inf), 16000, subtype="FLOAT"), "not finite"),
    "unscaled.wav": (lambda: wav_bytes(mid(20000.0), 16000, subtype="FLOAT"), "beyond 100 times"),
    "slow.wav": (lambda: wav_bytes(tone(4000), 4000), "4000 Hz; expected 8000 to 768000"),
    "fast.wav": (lambda: wav_bytes(tone(768001, 0.1), 768001), "768001 Hz"),
    "garbage.m4a": (lambda: b"\x00\x00\x00\x1cftypM4A " + bytes(range(256)) * 9, "garbage.m4a"),
    "garbage.webm": (lambda: b"\x1a\x45\xdf\xa3" + bytes(range(256)) * 9, "garbage.webm"),
    "garbage.ogg": (lambda: b"OggS" + bytes(range(256)) * 9, "damaged"),
    "garbage.flac": (lambda: b"fLaC" + bytes(range(256)) * 9, "damaged"),
    "garbage.mp3": (lambda: b"ID3" + bytes(range(256)) * 9, "damaged"),
}


def one_sentence(message: str) -> bool:
    return 0 < len(message) < 400 and message.isprintable()


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_file_is_one_sentence_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    make, expected = BAD_FILES[name]
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(make())
    for read in (load, lambda source, rate: list(stream(source, rate, 0.1))):
        with pytest.raises(AudioError) as caught:
            read(name, 16000)
        assert name in str(caught.value)
        assert expected in str(caught.value)
        assert one_sentence(str(caught.value))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("no/such/file.wav", "'no/such/file.wav' does not exist: there is no folder 'no/such'"),
        ("two\nlines.wav", "does not exist"),
        ("nul\0byte.wav", "cannot be read"),
        ("https://example.org/a.wav", "'https://example.org/a.wav' is a URL; expected a file"),
        (Path(__file__).parent, "is a folder"),
        (b"", "given as bytes is empty"),
        (b"no sound", "given as bytes is not a sound"),
        (io.BytesIO(b""), "is empty"),
        (io.StringIO("text"), "open as text"),
        ((np.zeros(0), 16000), "shape [0]"),
        ((np.zeros((100, 0)), 16000), "shape [100, 0]"),
        ((np.zeros(()), 16000), "shape []"),
        ((np.zeros((2, 3, 4)), 16000), "shape [2, 3, 4]"),
        ((np.zeros(100, complex), 16000), "dtype complex128"),
        ((np.zeros(100, bool), 16000), "dtype bool"),
        ((np.array(["a"]), 16000), "dtype <U1"),
        (([1.0, [2.0]], 16000), "cannot be read"),
        ((np.zeros(100), "fast"), "cannot be read"),
        ((np.zeros(100), None), "cannot be read"),
        ((np.zeros(100), 0), "0 Hz"),
        ((np.zeros(100), -16000), "-16000 Hz"),
        ((np.zeros(100), 44100.5), "44100.5 Hz"),
        ((np.zeros(100), math.nan), "nan Hz"),
        ((np.full(100, np.nan), 16000), "not finite"),
        ((np.full(100, 1e300), 16000), "not finite"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_source_is_one_sentence(source: object, expected: str) -> None:
    with pytest.raises(AudioError) as caught:
        load(source, 16000)
    assert expected in str(caught.value)
    assert one_sentence(str(caught.value))


@pytest.mark.skipif(sys.platform == "win32", reason="needs links and pipes of POSIX")
def test_special_files_are_refused(tmp_path: Path) -> None:
    loop, pipe = tmp_path / "loop.wav", tmp_path / "pipe.wav"
    loop.symlink_to(loop)
    os.mkfifo(pipe)
    for path in (loop, pipe):
        with pytest.raises(AudioError, match=path.name):
            load(path, 16000)


def test_unreadable_file_is_an_error(wav: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(decoding.Path, "open", refuse)
    with pytest.raises(AudioError, match=r"tone\.wav' cannot be read \(Permission denied\)"):
        load(wav, 16000)


def test_failing_file_object_is_an_error() -> None:
    class Broken(io.RawIOBase):
        name = "upload.wav"

        def read(self, size: int = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(AudioError, match=r"upload\.wav' cannot be read"):
        load(Broken(), 16000)


def test_wrong_kind_of_source_is_an_error() -> None:
    """In a fresh interpreter, without the type checks of the test run."""
    code = "from earwitness import AudioError\nfrom earwitness.audio import load\n"
    code += "for s in (None, 3, [0.0], {}):\n"
    code += " try: load(s, 16000)\n except AudioError as e: print(e)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.count("expected a path, bytes, a binary file object or") == 4


@pytest.mark.parametrize("rate", [0, -1, 7999, 192001])
def test_target_rate_outside_the_range_is_an_error(wav: Path, rate: int) -> None:
    with pytest.raises(AudioError, match=f"{rate} Hz; expected 8000 to 192000 Hz"):
        load(wav, rate)


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf, 1e-9])
def test_block_without_a_sample_is_an_error(wav: Path, seconds: float) -> None:
    with pytest.raises(AudioError, match="block"):
        next(stream(wav, 16000, seconds))


def test_a_little_missing_at_the_end_is_no_error(wav: Path) -> None:
    contents = wav.read_bytes()
    sound = load(contents[: round(0.97 * len(contents))], 44100)
    assert len(sound) / 44100 == pytest.approx(0.97 * 2, abs=0.01)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_limits_hold_on_files(kind: str) -> None:
    contents = wav_bytes(tone(16000, 2.0), 16000, format=kind)
    assert len(load(contents, 16000, max_seconds=2.0, max_bytes=len(contents))) == 32000
    with pytest.raises(AudioTooLargeError, match=r"longer than the limit of 1\.9 s"):
        load(contents, 16000, max_seconds=1.9)
    for source in (contents, io.BytesIO(contents)):
        with pytest.raises(AudioTooLargeError, match="larger than the limit of 1000 bytes"):
            load(source, 16000, max_bytes=1000)
    with pytest.raises(AudioTooLargeError):
        list(stream(contents, 16000, 1.0, max_seconds=1.5))


def test_limits_hold_on_arrays() -> None:
    with pytest.raises(AudioTooLargeError, match="longer than the limit of 10800 s"):
        load((np.zeros(8000 * 10801, dtype=np.int8), 8000), 8000)
    with pytest.raises(AudioTooLargeError, match="larger than the limit of 100 bytes"):
        load((np.zeros(101, dtype=np.int8), 8000), 8000, max_bytes=100)


@NEEDS_FFMPEG
def test_limits_hold_through_ffmpeg(tmp_path: Path) -> None:
    path = encode(tmp_path / "tone.webm", seconds=3)
    with pytest.raises(AudioTooLargeError, match="longer than the limit of 2 s"):
        load(path, 16000, max_seconds=2)


@NEEDS_FFMPEG
@pytest.mark.parametrize("kind", ["mp4", "m4a", "mov", "webm", "mkv", "flv"])
def test_cut_container_is_an_error(tmp_path: Path, kind: str) -> None:
    path = encode(tmp_path / f"tone.{kind}", *FFMPEG_KINDS[kind], seconds=3)
    path.write_bytes(half(path.read_bytes()))
    with pytest.raises(AudioError, match=f"tone.{kind}' is (cut off|damaged)"):
        load(path, 16000)


@NEEDS_FFMPEG
def test_film_without_sound_says_so(tmp_path: Path) -> None:
    path = tmp_path / "silent.mp4"
    argv = ["ffmpeg", "-nostdin", "-v", "error", "-f", "lavfi", "-i", "color=d=1:s=32x32"]
    subprocess.run([*argv, "-c:v", "mpeg4", path], check=True)
    with pytest.raises(AudioError, match=r"silent\.mp4' has no audio track"):
        load(path, 16000)


MARKS = [
    *(b"\x1a\x45\xdf\xa3", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", b"\xff\xf1", b"\xff\xfb"),
    *(b"RIFF\0\0\0\0AVI ", b"RIFF\0\0\0\0WAVE", b"FORM\0\0\0\0AIFF", b"#!AMR\n", b"\x0b\x77"),
    *(b"wvpk", b"MAC ", b"TTA1", b"\0\0\x01\xba", b"OggS\0\x02", b"fLaC", b"ID3\x04", b"caff"),
    *(b"FLV\x01", b".snd", b"\x7f\xfe\x80\x01"),
    *(b"\0\0\0\x1c" + kind for kind in (b"ftypM4A ", b"moov", b"mdat", b"wide", b"free")),
    b"\x47".ljust(188, b"\0") + b"\x47".ljust(188, b"\0") + b"\x47",
]


def read_or_refuse(contents: bytes) -> None:
    """Finite samples, or one sentence; nothing else."""
    refusal = "none"
    try:
        sound = load(contents, 16000, max_seconds=60)
    except AudioError as error:
        refusal, sound = str(error), np.zeros(1)
    assert one_sentence(refusal)
    assert len(sound) > 0
    assert np.isfinite(sound).all()


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([b"", *MARKS]), st.binary(max_size=2000))
def test_random_bytes_raise_nothing_but_audio_errors(mark: bytes, rest: bytes) -> None:
    read_or_refuse(mark + rest)


def test_a_place_beyond_all_files_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    contents = bytearray(wav_bytes(tone(16000, 0.2), 16000, format="CAF"))
    at = contents.index(b"data") - 8
    for chunk in range(8, at, 12):
        size = contents[chunk + 4 : chunk + 12]
        contents[chunk + 4 : chunk + 12] = b"\x7f" + b"\xff" * 7
        read_or_refuse(bytes(contents))
        contents[chunk + 4 : chunk + 12] = size
    assert capfd.readouterr().err == ""


@settings(max_examples=60, deadline=None)
@example("CAF", [(28, 0)])  # a codec that no decoder has a name for
@given(
    st.sampled_from(["WAV", "FLAC", "OGG", "MP3", "AIFF", "CAF", "W64", "AU"]),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_damaged_files_raise_nothing_but_audio_errors(
    kind: str, damage: list[tuple[int, int]]
) -> None:
    contents = bytearray(wav_bytes(tone(16000, 0.2), 16000, format=kind))
    for at, value in damage:
        contents[at % len(contents)] = value
    read_or_refuse(bytes(contents))
