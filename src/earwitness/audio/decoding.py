"""Sound files as blocks of samples at their own rate: libsndfile, and ffmpeg for the rest.

One block is held at a time. ffmpeg runs only on files whose first bytes are those of a container in
the tables below, may open nothing but that file, and is given no network and no shell.
"""

import re
import shutil
import stat
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Shaped

from earwitness.errors import AudioError, AudioTooLargeError, MissingDependencyError

if TYPE_CHECKING:
    from soundfile import SoundFile

MIN_RATE = 8_000
MAX_RATE = 192_000
ACCEPTED = (
    "a sound file in wav, flac, mp3, ogg, opus or aiff, or through ffmpeg in m4a, aac, mp4, webm, "
    "mkv, mov or wma"
)
# A header may promise this many times what can be read before the file counts as cut off.
TRUNCATION = 1.05

_BLOCK_SAMPLES = 1 << 18
_FFMPEG_SECONDS = 60.0
# Writers into a pipe cannot know the size; they leave one of about 2 or 4 GiB in the header.
_SIZE_UNKNOWN = 0x7FFF0000
_FRAMES_UNKNOWN = 1 << 62
# libsndfile's SF_ERR_MALFORMED_FILE: a format it knows, in disorder.
_MALFORMED = 3
# libsndfile's report of a chunk that reaches beyond the end of the file.
_SHORT_CHUNK = re.compile(r"^\s*(?:data|SSND|Data Size|riff)\s*: (\d+) \(should be (\d+)\)", re.M)
_SHORT_RF64 = re.compile(r"does not match value from 'ds64' chunk of (\d+)")
_FFMPEG_DURATION = re.compile(r"^  Duration: (\d+):(\d\d):(\d\d\.\d+)", re.M)

# First bytes as (offset, bytes) pairs that must all match -> the only demuxers ffmpeg may try. A
# forced list keeps text and playlists, which may name other files, away from ffmpeg.
_CONTAINERS: dict[tuple[tuple[int, bytes], ...], str] = {
    ((4, b"ftyp"),): "mov",
    ((4, b"moov"),): "mov",
    ((4, b"mdat"),): "mov",
    ((4, b"wide"),): "mov",
    ((0, b"\x1a\x45\xdf\xa3"),): "matroska",
    ((0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),): "asf",
    ((0, b"\xff\xf1"),): "aac",
    ((0, b"\xff\xf9"),): "aac",
    ((0, b"FLV\x01"),): "flv",
    ((0, b"RIFF"), (8, b"AVI ")): "avi",
    ((0, b"#!AMR"),): "amr",
    ((0, b"\x0b\x77"),): "ac3,eac3",
    ((0, b"wvpk"),): "wv",
    ((0, b"MAC "),): "ape",
    ((0, b"TTA1"),): "tta",
    ((0, b"\x00\x00\x01\xba"),): "mpeg",
    ((0, b"\x47"), (188, b"\x47"), (376, b"\x47")): "mpegts",
}
# Families of libsndfile with encodings that only ffmpeg knows (WMA in wav, Speex in ogg, ...).
_FAMILIES: dict[tuple[tuple[int, bytes], ...], str] = {
    ((0, b"RIFF"), (8, b"WAVE")): "wav",
    ((0, b"OggS"),): "ogg",
    ((0, b"fLaC"),): "flac",
    ((0, b"ID3"),): "mp3,aac",
    ((0, b"caff"),): "caf",
    ((0, b"FORM"), (8, b"AIF")): "aiff",
}


@dataclass(frozen=True)
class Sound:
    """An opened sound: blocks of [frames, channels]; `frames` is None where only decoding tells."""

    name: str
    rate: int
    frames: int | None
    blocks: Iterator[Shaped[np.ndarray, "T channels"]]

    def __post_init__(self) -> None:
        if not MIN_RATE <= self.rate <= MAX_RATE:
            raise AudioError(
                f"{self.name} has a sample rate of {self.rate} Hz; "
                f"accepted are {MIN_RATE} to {MAX_RATE} Hz"
            )


@contextmanager
def decoded(path: Path, name: str, max_bytes: float | int) -> Iterator[Sound]:
    """The file opened by libsndfile, or else by ffmpeg if its first bytes are a container's."""
    head = _head(path, name, max_bytes)
    file = _sndfile(path, name)
    if isinstance(file, str):
        with _ffmpeg(path, name, _demuxers(head, name, file)) as sound:
            yield sound
        return
    with file:
        # Without a header libsndfile would go by the ending of the name alone (.vox, .gsm, ...).
        if file.format == "RAW":
            raise _not_a_sound(name)
        yield Sound(name, file.samplerate, _promised(file, path, name), _sndfile_blocks(file, name))


def _sndfile(path: Path, name: str) -> "SoundFile | str":
    """The file opened by libsndfile, or why it is refused."""
    import soundfile

    try:
        file = soundfile.SoundFile(path)
    except soundfile.LibsndfileError as error:
        # A cut CAF file, say; ffmpeg would make do with what is left.
        if error.code == _MALFORMED:
            raise _damaged(name) from None
        return error.error_string
    except TypeError:
        # soundfile takes the ending .raw to promise a rate from the caller.
        return "no header"
    # FLAC written into a pipe: soundfile seeks after each read, which fails without a length.
    if file.frames >= _FRAMES_UNKNOWN:
        file.close()
        return "no length in the header"
    return file


def _head(path: Path, name: str, max_bytes: float | int) -> bytes:
    """The first bytes of a regular, readable file that is neither empty nor too large."""
    try:
        info = path.stat()
        if stat.S_ISDIR(info.st_mode):
            raise AudioError(f"{name} is a folder; expected {ACCEPTED}")
        if not stat.S_ISREG(info.st_mode):
            raise AudioError(f"{name} is not a regular file; expected {ACCEPTED}")
        with path.open("rb") as file:
            head = file.read(512)
    except FileNotFoundError:
        raise AudioError(f"{name} does not exist; expected {ACCEPTED}") from None
    except (OSError, ValueError) as error:
        raise AudioError(f"{name} cannot be read ({one_line(error)})") from None
    if not head:
        raise AudioError(f"{name} is empty (0 bytes); expected {ACCEPTED}")
    check_bytes(name, info.st_size, max_bytes)
    return head


def _demuxers(head: bytes, name: str, reason: str) -> str:
    """The demuxers for a file that libsndfile refused for `reason`."""
    found = _sniffed(head, _CONTAINERS)
    if found is not None:
        if shutil.which("ffmpeg") is None:
            raise MissingDependencyError(
                f"{name} needs the program ffmpeg, which is not on the PATH; without it wav, flac, "
                "mp3, ogg, opus and aiff can be read"
            )
        return found
    found = _sniffed(head, _FAMILIES)
    if found is None:
        raise _not_a_sound(name)
    if shutil.which("ffmpeg") is None:
        raise AudioError(
            f"{name} is damaged, or has an encoding that needs the program ffmpeg, which is not on "
            f"the PATH (libsndfile: {reason})"
        )
    return found


def _sniffed(head: bytes, table: dict[tuple[tuple[int, bytes], ...], str]) -> str | None:
    for marks, demuxers in table.items():
        if all(head[at:].startswith(mark) for at, mark in marks):
            return demuxers
    return None


def _not_a_sound(name: str) -> AudioError:
    return AudioError(f"{name} is not a sound in a known format; expected {ACCEPTED}")


def block_frames(channels: int) -> int:
    """Frames per block, so that a block stays small whatever the number of channels."""
    return max(1, _BLOCK_SAMPLES // channels)


def check_bytes(name: str, size: int, max_bytes: float | int) -> None:
    """Raises AudioTooLargeError where `size` is beyond the limit."""
    if size > max_bytes:
        raise AudioTooLargeError(f"{name} is larger than {max_bytes:g} bytes, the limit in force")


def cut_off(name: str, promised: float, found: float) -> AudioError:
    """The error of a file whose header promises more seconds than it holds."""
    return AudioError(
        f"{name} is cut off: its header promises {promised:.2f} s and {found:.2f} s are there; "
        "expected a complete file"
    )


def one_line(error: Exception) -> str:
    """What went wrong, without line breaks."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


def _damaged(name: str) -> AudioError:
    return AudioError(f"{name} is damaged and cannot be decoded; expected a complete file")


def _promised(file: "SoundFile", path: Path, name: str) -> int | None:
    """Frames by the header, None where it does not say; refuses a file shorter than its header."""
    if file.subtype.startswith("MPEG") and not _tagged_mpeg(path):
        return None
    report = file.extra_info
    for size, found in _SHORT_CHUNK.findall(report):
        if TRUNCATION * int(found) < int(size) < _SIZE_UNKNOWN:
            seconds = file.frames / file.samplerate
            raise cut_off(name, seconds * int(size) / max(1, int(found)), seconds)
    for frames in _SHORT_RF64.findall(report):
        if int(frames) > TRUNCATION * file.frames:
            raise cut_off(name, int(frames) / file.samplerate, file.frames / file.samplerate)
    return file.frames


def _tagged_mpeg(path: Path) -> bool:
    """Whether an MPEG stream starts with a tag that states its length; else it is an estimate."""
    with path.open("rb") as file:
        start = file.read(10)
        skip = 0
        if start.startswith(b"ID3") and len(start) == 10:
            for byte in start[6:]:
                skip = skip << 7 | byte & 0x7F
            skip += 10
        file.seek(skip)
        first = file.read(4096)
    return any(tag in first for tag in (b"Xing", b"Info", b"VBRI"))


def _sndfile_blocks(file: "SoundFile", name: str) -> Iterator[Float32[np.ndarray, "T channels"]]:
    import soundfile

    frames = block_frames(file.channels)
    while True:
        try:
            block = file.read(frames, dtype="float32", always_2d=True)
        except soundfile.SoundFileError:
            raise _damaged(name) from None
        if len(block) == 0:
            return
        yield block


@contextmanager
def _ffmpeg(path: Path, name: str, demuxers: str) -> Iterator[Sound]:
    """The first audio track as ffmpeg decodes it, at its own rate and with its own channels."""
    argv = ["ffmpeg", "-nostdin", "-hide_banner", "-nostats", "-loglevel", "info"]
    argv += ["-protocol_whitelist", "file,pipe", "-format_whitelist", demuxers]
    argv += ["-i", f"file:{path.absolute()}", "-map", "0:a:0", "-map_metadata", "-1"]
    argv += ["-c:a", "pcm_f32be", "-f", "au", "pipe:1"]
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
        ) as process,
    ):
        try:
            # The AU header states what the pipe carries: offset of the data, rate, channels.
            header = _pipe_read(process, 24)
            if len(header) < 24:
                raise _ffmpeg_failure(name, _finished(process, log))
            offset, _, _, rate, channels = struct.unpack(">4x5I", header)
            _pipe_read(process, offset - 24)
            yield Sound(name, rate, None, _ffmpeg_blocks(process, log, name, rate, channels))
        finally:
            process.kill()


def _ffmpeg_blocks(
    process: subprocess.Popen[bytes], log: IO[bytes], name: str, rate: int, channels: int
) -> Iterator[Float32[np.ndarray, "T channels"]]:
    width = 4 * channels
    frames = 0
    while chunk := _pipe_read(process, block_frames(channels) * width):
        samples = np.frombuffer(chunk[: len(chunk) - len(chunk) % width], dtype=">f4")
        block = samples.astype(np.float32).reshape(-1, channels)
        frames += len(block)
        yield block
    report = _finished(process, log)
    if process.returncode != 0 or frames == 0:
        raise _ffmpeg_failure(name, report)
    if "partial file" in report or "File ended prematurely" in report:
        raise AudioError(f"{name} is cut off after {frames / rate:.2f} s; expected a complete file")
    promised = _ffmpeg_promise(report)
    if promised > TRUNCATION * frames / rate:
        raise cut_off(name, promised, frames / rate)


def _ffmpeg_promise(report: str) -> float:
    """Seconds by the container; 0 where it does not say, or where a picture track may be longer."""
    found = _FFMPEG_DURATION.search(report)
    if found is None or "Estimating duration" in report or ": Video: " in report:
        return 0.0
    hours, minutes, seconds = found.groups()
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)


def _pipe_read(process: subprocess.Popen[bytes], size: int) -> bytes:
    """`size` bytes, fewer at the end; an ffmpeg that stays silent too long is ended."""
    assert process.stdout is not None
    watchdog = threading.Timer(_FFMPEG_SECONDS, process.kill)
    watchdog.start()
    try:
        return process.stdout.read(size)
    finally:
        watchdog.cancel()


def _finished(process: subprocess.Popen[bytes], log: IO[bytes]) -> str:
    """What an ffmpeg that has closed its pipe reported."""
    try:
        process.wait(_FFMPEG_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    log.seek(0)
    return log.read().decode(errors="replace")


def _ffmpeg_failure(name: str, report: str) -> AudioError:
    if "matches no streams" in report:
        return AudioError(f"{name} has no audio track; expected {ACCEPTED}")
    return _damaged(name)
