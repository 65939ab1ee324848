"""Where a stream comes from: a pipe or file, a microphone, or an address on the network."""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from earwitness import audio
from earwitness.audio import Readable
from earwitness.audio.loading import resampled
from earwitness.audio.sound import Block, Sound, scaled
from earwitness.errors import AudioError, ConfigError
from earwitness.live.containers import frames_of, opened_pipe, opened_url

PcmFormat = Literal["s16le", "s32le", "f32le", "u8"]

DTYPES: dict[str, str] = {"s16le": "<i2", "s32le": "<i4", "f32le": "<f4", "u8": "u1"}
"""samples without a header: the name of their format -> numpy's"""

_BLOCK_S = 0.1
_URL = re.compile(r"(rtsps?|https?|udp|rtp|srt|tcp|rtmps?)://", re.IGNORECASE)
_LOGIN = re.compile(r"(?<=://)[^/@]*@")
_HEADS = (
    b"RIFF",
    b"RF64",
    b"OggS",
    b"fLaC",
    b"ID3",
    b"\x1a\x45\xdf\xa3",
    b"FORM",
    b".snd",
    b"caff",
)


@dataclass(frozen=True)
class Pcm:
    """Samples without a header: their format, rate in Hz, and number of channels."""

    format: PcmFormat = "s16le"
    rate: int = 16_000
    channels: int = 1

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of all channels."""
        return np.dtype(DTYPES[self.format]).itemsize * self.channels

    def block(self, data: bytes) -> Block:
        """Whole frames as a block."""
        samples = np.frombuffer(data, DTYPES[self.format]).reshape(-1, self.channels)
        return Block(scaled(samples), self.rate)


@runtime_checkable
class Source(Protocol):
    """A stream of sound."""

    @property
    def name(self) -> str:
        """For messages, without passwords."""
        ...

    @property
    def reconnects(self) -> bool:
        """Whether to retry it once it has ended: true for devices and the network."""
        ...

    def blocks(self) -> Iterator[Block]:
        """The sound from now on, as it arrives. Raises AudioError if it is unavailable."""
        ...


def samples(source: Source, rate: int) -> Iterator[Float32[np.ndarray, " _"]]:
    """The mono samples of a source at `rate` Hz. Raises AudioError."""
    return resampled(Sound(source.name, None, source.blocks()), rate, float("inf"))


def source_of(name: str | None, pcm: Pcm, stall: float = 10.0) -> Source:
    """The source that `--input` names: None is the default microphone, `-` standard input.

    `stall`: seconds after which an address that sends nothing counts as lost.
    Raises ConfigError: neither a file, an address, nor a microphone.
    """
    from earwitness.live.microphone import Microphone

    if name is None:
        return Microphone(None)
    if name == "-":
        return Pipe(None, pcm)
    if _URL.match(name):
        return Address(name, stall)
    path = Path(name)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if "/" not in name and os.sep not in name:
            return Microphone(name)
        raise ConfigError(
            f"--input {name}: does not exist; expected a file or FIFO, -, an address such as "
            "rtsp://..., or a microphone that --devices lists"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"--input {name}: cannot be read ({error})") from None
    if stat.S_ISDIR(mode):
        raise ConfigError(f"--input {name}: is a folder; expected a stream or one sound file")
    if stat.S_ISREG(mode) and not _is_raw(path):
        return SoundFile(path)
    return Pipe(path, pcm)


def _is_raw(path: Path) -> bool:
    return path.suffix.lower() in (".raw", ".pcm", ".s16", ".s16le", ".f32", ".f32le")


@dataclass
class SoundFile:
    """A sound file as a stream, as fast as it is read."""

    path: Path
    reconnects: bool = False

    @property
    def name(self) -> str:
        """The path."""
        return repr(str(self.path))

    def blocks(self) -> Iterator[Block]:
        """The sound of the file at 16 kHz."""
        rate = 16_000
        for samples in audio.stream(self.path, rate, 10 * _BLOCK_S):
            yield Block(samples[:, None], rate)


@dataclass
class Pipe:
    """Standard input (`path` None), a FIFO, or a file of samples without a header.

    A stream that begins as WAV, Ogg, FLAC, WebM and the like is decoded as such.
    """

    path: Path | None
    pcm: Pcm
    reconnects: bool = False

    @property
    def name(self) -> str:
        """The path, or standard input."""
        return "standard input" if self.path is None else repr(str(self.path))

    def blocks(self) -> Iterator[Block]:
        """The sound as it arrives, up to the end of the pipe."""
        try:
            if self.path is None:
                with open(0, "rb", buffering=0, closefd=False) as file:
                    yield from read_stream(file, self.pcm, self.name)
            else:
                with self.path.open("rb", buffering=0) as file:
                    yield from read_stream(file, self.pcm, self.name)
        except OSError as error:
            raise AudioError(f"{self.name} cannot be read ({error.strerror})") from None


def read_stream(file: Readable, pcm: Pcm, name: str) -> Iterator[Block]:
    """The sound that arrives in `file`: decoded where it begins as WAV, Ogg, FLAC or WebM, samples
    without a header otherwise. Raises AudioError.
    """
    head = b""
    while len(head) < 4 and (more := file.read(4 - len(head))):
        head += more
    if head.startswith(_HEADS):
        yield from frames_of(opened_pipe(file, head, name), name)
        return
    frame, held = pcm.frame_bytes, head
    size = max(1, round(_BLOCK_S * pcm.rate)) * frame
    while data := file.read(size):
        held += data
        whole = len(held) - len(held) % frame
        if whole:
            yield pcm.block(held[:whole])
        held = held[whole:]
    if len(held) >= frame:
        yield pcm.block(held[: len(held) - len(held) % frame])


@dataclass
class Address:
    """A stream on the network, through FFmpeg's libraries: RTSP, HTTP, UDP, RTP, SRT, TCP, RTMP."""

    url: str
    stall: float = 10.0
    reconnects: bool = True

    @property
    def name(self) -> str:
        """The address without a user's name and password."""
        return _LOGIN.sub("", self.url)

    def blocks(self) -> Iterator[Block]:
        """The sound from now on. Raises AudioError: nothing answers, or nothing arrives."""
        yield from frames_of(opened_url(self.url, self.name, self.stall), self.name)
