"""Streams that FFmpeg's libraries (PyAV) demux: from a pipe, or from an address.

An address may not lead to local files, whatever a playlist behind it says, and a pipe may lead
nowhere else.
"""

from collections.abc import Iterator
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from earwitness.audio import Readable
from earwitness.audio.container import DEMUXERS, joined, refuse
from earwitness.audio.sound import Block, check_rate, not_a_sound, reason_of
from earwitness.errors import AudioError

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer

_PROTOCOLS = "rtsp,rtsps,rtp,srtp,udp,tcp,tls,http,https,httpproxy,crypto,hls,srt,rtmp,rtmps,rtmpt"
_QUICK = {"probesize": "65536", "analyzeduration": "1000000"}
CONNECT_S = 10.0
"""seconds in which an address must answer"""

_BAD_PACKETS = 50


class Forward:
    """A forward-only stream for PyAV; `head` has already been read."""

    def __init__(self, file: Readable, head: bytes) -> None:
        self._file, self._head = file, head

    def read(self, size: int, /) -> bytes:
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        return self._file.read(size) or b""


def opened_pipe(file: Readable, head: bytes, name: str) -> "InputContainer":
    """A container that arrives through a pipe. Raises AudioError: not a known format."""
    import av
    from av.error import FFmpegError

    safe = {"protocol_whitelist": "", "format_whitelist": ",".join(DEMUXERS)}
    try:
        return av.open(
            Forward(file, head),  # type: ignore[arg-type]
            options=_QUICK | safe,
            io_open=refuse,
            buffer_size=4096,
        )
    except (FFmpegError, OSError, ValueError):
        raise not_a_sound(name) from None


def opened_url(url: str, name: str, stall: float) -> "InputContainer":
    """A stream at an address that the user named.

    Raises AudioError: nothing answers within 10 s, or what answers is not a stream of sound.
    """
    import av
    from av.error import FFmpegError

    options = _QUICK | {"protocol_whitelist": _PROTOCOLS}
    if url.lower().startswith("rtsp"):
        # Over TCP nothing is lost on the way; some servers only support UDP, FFmpeg's default.
        with suppress(FFmpegError, OSError, ValueError):
            over_tcp = options | {"rtsp_transport": "tcp"}
            return av.open(url, options=over_tcp, timeout=(CONNECT_S, stall))
    try:
        return av.open(url, options=options, timeout=(CONNECT_S, stall))
    except (FFmpegError, OSError, ValueError) as error:
        raise AudioError(f"{name} cannot be opened ({_reason(error)})") from None


def frames_of(container: "InputContainer", name: str) -> Iterator[Block]:
    """The sound of the first track, frame by frame. Raises AudioError: no sound in it, or the
    stream broke off.
    """
    from av.error import EOFError as EndOfStream
    from av.error import FFmpegError

    with closing(container):
        track = next(iter(container.streams.audio), None)
        # PyAV has no context where FFmpeg knows no decoder.
        if track is None or track.codec_context is None:  # pyright: ignore[reportUnnecessaryComparison]
            raise AudioError(f"{name} holds no sound")
        try:
            yield from _decoded(container, track, name)
        except EndOfStream:
            return
        except (FFmpegError, OSError) as error:
            raise AudioError(f"{name} broke off ({_reason(error)})") from None


def _decoded(container: "InputContainer", track: "AudioStream", name: str) -> Iterator[Block]:
    """The frames of a track; a few damaged packets are skipped."""
    from av.error import FFmpegError

    bad = 0
    for packet in container.demux(track):
        try:
            frames = track.codec_context.decode(packet)
        except (FFmpegError, ValueError):
            bad += 1
            if bad > _BAD_PACKETS:
                raise AudioError(f"{name} cannot be decoded") from None
            continue
        bad = 0
        for frame in frames:
            check_rate(name, frame.sample_rate)
            yield joined([frame])


def _reason(error: Exception) -> str:
    from av.error import ExitError

    return "nothing arrives" if isinstance(error, ExitError) else reason_of(error)
