"""Framed formats, demuxed and decoded by FFmpeg's libraries (PyAV) by presentation time.

Only the bytes of the file itself can be read: a demuxer that asks for another file or for the
network is refused, and demuxers that depend on other files or on text are never tried.
"""

from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from earwitness.audio import promises
from earwitness.audio.sound import (
    Block,
    Note,
    block_frames,
    check_promise,
    check_rate,
    damaged,
    not_a_sound,
    scaled,
)
from earwitness.audio.timeline import TimeLine
from earwitness.audio.tracks import Track, chosen
from earwitness.errors import AudioError

if TYPE_CHECKING:
    from av import AudioFrame, Packet
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.stream import Stream

DEMUXERS = (
    ("aa", "aac", "aax", "ac3", "ac4", "act", "aea", "aiff", "amr", "ape", "asf", "ast", "au")
    + ("avi", "avr", "bonk", "brstm", "caf", "codec2", "dsf", "dss", "dts", "dtshd", "dv", "eac3")
    + ("epaf", "flac", "flv", "gxf", "hca", "hcom", "iamf", "iff", "ilbc", "ircam", "lc3", "loas")
    + ("matroska", "mlp", "mmf", "mov", "mp3", "mpc", "mpc8", "mpeg", "mpegts", "mxf", "nistsphere")
    + ("nsv", "nut", "nuv", "ogg", "oma", "osq", "pva", "pvf", "qcp", "qoa", "rka", "rm", "sbc")
    + ("sds", "sdx", "shn", "sox", "spdif", "swf", "tak", "truehd", "tta", "ty", "vag", "voc")
    + ("vqf", "w64", "wav", "wavarc", "wsd", "wtv", "wv", "wve", "xwma")
)
"""FFmpeg's demuxers for audio and video files; none for playlists, images, subtitles or devices"""

# Formats whose header states a length; for others FFmpeg estimates it from the data.
_STATING = frozenset(
    ("aiff", "ape", "ast", "au", "caf", "flac", "flv", "matroska", "mov", "mxf", "nut", "rm")
    + ("tta", "w64", "wav", "wv")
)
_PARSED = {
    "mp3": promises.mpeg_seconds,
    "asf": promises.asf_seconds,
    "avi": promises.avi_seconds,
}
# Formats whose clock may jump where recordings were joined.
_JUMPING = frozenset(("mpeg", "mpegts"))
# A file is damaged if more packets than both this count and this share cannot be decoded.
_BAD_PACKETS, _BAD_SHARE = 2, 0.05
_SECOND = 1_000_000


class Slice:
    """The bytes of a file from `start` to `end`, without a file name for FFmpeg to go by."""

    def __init__(self, file: BinaryIO, start: int, end: int) -> None:
        self._file, self._start, self._end = file, start, end
        self._file.seek(start)

    def read(self, size: int, /) -> bytes:
        return self._file.read(max(0, min(size, self._end - self._file.tell())))

    def seek(self, offset: int, whence: int = 0, /) -> int:
        base = (self._start, self._file.tell(), self._end)[whence]
        # A broken header may give an impossible offset; nothing is read past the end.
        place = min(max(self._start, base + offset), self._end)
        return self._file.seek(place) - self._start

    def tell(self) -> int:
        return self._file.tell() - self._start


def blocks(
    path: Path, name: str, links: list[tuple[int, int]], track: Track, note: Note
) -> Generator[Block, None, None]:
    """The samples of an audio track by the file's presentation time, from time 0 on.

    `links` are the byte ranges of the files that were joined into this one.
    Raises AudioError: not a sound, no such track, damaged or cut off.
    """
    with path.open("rb") as file:
        for start, end in links:
            container = _opened(Slice(file, start, end), name)
            with closing(container):
                stream = chosen(container, name, track, note)
                if not stream.codec_context:
                    # No decoder matches the header: it is broken, or the codec is rare.
                    raise damaged(name)
                promised = _promise(container, stream, path, start)
                yield from _Decoder(container, stream, name, note, promised).run()
                # Notes on the first link hold for all of them.
                note = _silent


def _silent(_: str) -> None:
    return None


def _opened(file: Slice, name: str) -> "InputContainer":
    import av
    from av.error import FFmpegError

    safe = {"protocol_whitelist": "", "format_whitelist": ",".join(DEMUXERS)}
    try:
        # The type wants a file name; without one, FFmpeg cannot go by its extension.
        return av.open(file, options=safe, io_open=refuse)  # type: ignore[arg-type]
    except (FFmpegError, OSError, ValueError):
        raise _unreadable(file, name) from None


def refuse(url: str, *_: object) -> None:
    """Refuses a demuxer that asks for another file. Raises PermissionError."""
    raise PermissionError(13, "a sound file may not refer to other files")


_MAGIC = (
    (b"\x1a\x45\xdf\xa3", b"\x30\x26\xb2\x75", b"FLV\x01", b"RIFF", b"RF64", b"RIFX", b"#!AMR")
    + (b"wvpk", b"MAC ", b"TTA1", b"OggS", b"fLaC", b"ID3", b"caff", b"FORM", b".snd")
)  # fmt: skip


def _unreadable(file: Slice, name: str) -> AudioError:
    """The error for a file that no demuxer accepts: damaged if it begins like a known format."""
    file.seek(0)
    head = file.read(12)
    known = head.startswith(_MAGIC) or head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free")
    return damaged(name) if known else not_a_sound(name)


def _promise(container: "InputContainer", stream: "AudioStream", path: Path, start: int) -> float:
    """Seconds according to the header: the track's if stated, else the file's; 0 if neither is."""
    kind = _kind(container)
    if parsed := _PARSED.get(kind):
        with path.open("rb") as file:
            file.seek(start)
            return parsed(file)
    if kind == "mov":
        return float((stream.duration or 0) * (stream.time_base or 0))
    return (container.duration or 0) / _SECOND if kind in _STATING else 0.0


def _kind(container: "InputContainer") -> str:
    return container.format.name.partition(",")[0]


class _Decoder:
    """One pass over an opened file."""

    def __init__(
        self,
        container: "InputContainer",
        stream: "AudioStream",
        name: str,
        note: Note,
        promised: float,
    ) -> None:
        from av.stream import Discard

        self.container, self.stream, self.name, self.note = container, stream, name, note
        kind = _kind(container)
        start = (container.start_time or 0) / _SECOND
        if kind == "mov":
            # The track states its own length, so the video need not be read.
            for other in container.streams:
                if other.index != stream.index:
                    other.discard = Discard.all
        self.line = TimeLine(start, jumps=kind in _JUMPING)
        self.promised = promised
        self.furthest = 0.0
        self.packets = self.bad = 0

    def run(self) -> Iterator[Block]:
        """Blocks of the whole track; raises AudioError if it is damaged or cut off."""
        held: list[AudioFrame] = []
        count = 0
        for frame in self._frames():
            if held and not _alike(held[0], frame):
                yield joined(held)
                held, count = [], 0
            if not held:
                check_rate(self.name, frame.sample_rate)
            channels = frame.layout.nb_channels
            gap = self.line.gap(frame)
            while gap > 0:
                if held:
                    yield joined(held)
                    held, count = [], 0
                part = min(gap, block_frames(channels))
                silence = np.zeros((part, channels), dtype=np.float32)
                yield Block(silence, frame.sample_rate, _names(frame))
                gap -= part
            held.append(frame)
            count += frame.samples
            if count >= block_frames(channels):
                yield joined(held)
                held, count = [], 0
        if held:
            yield joined(held)
        self._check()

    def _frames(self) -> "Iterator[AudioFrame]":
        from av.error import FFmpegError

        try:
            for packet in self.container.demux():
                if packet.stream_index == self.stream.index:
                    yield from self._decoded(packet)
                self._reach(packet)
        except (FFmpegError, OSError, ValueError):
            self.note(f"{self.name}: damaged after {self.line.seconds:.2f} s; read up to there")
            yield from self._decoded(None)

    def _decoded(self, packet: "Packet[Stream] | None") -> "list[AudioFrame]":
        from av.error import FFmpegError

        holds = packet is not None and packet.size > 0
        self.packets += holds
        try:
            # av does not fully type this call.
            return self.stream.codec_context.decode(packet)  # pyright: ignore[reportUnknownMemberType]
        except (FFmpegError, ValueError):
            self.bad += holds
            return []

    def _reach(self, packet: "Packet[Stream]") -> None:
        """Records how far the file extends, on any track."""
        if packet.pts is None or not packet.time_base:
            return
        start = float(packet.pts * packet.time_base)
        self.furthest = max(self.furthest, start + float((packet.duration or 0) * packet.time_base))
        if packet.stream_index != self.stream.index:
            self.line.other(start)

    def _check(self) -> None:
        if self.line.empty:
            raise damaged(self.name)
        if self.bad > max(_BAD_PACKETS, _BAD_SHARE * self.packets):
            raise damaged(self.name)
        found = self.line.seconds - self.line.first
        if _kind(self.container) != "mov":
            found = max(found, self.furthest)
        check_promise(self.name, self.promised, found, self.note)
        if self.bad > _BAD_PACKETS:
            self.note(f"{self.name}: {self.bad} of {self.packets} packets could not be decoded")


def _alike(left: "AudioFrame", right: "AudioFrame") -> bool:
    return (left.sample_rate, left.layout.name, left.format.name) == (
        right.sample_rate,
        right.layout.name,
        right.format.name,
    )


def _names(frame: "AudioFrame") -> tuple[str, ...] | None:
    names = tuple(channel.name for channel in frame.layout.channels)
    return None if "NONE" in names else names


def joined(frames: "list[AudioFrame]") -> Block:
    """Frames of the same format as one block."""
    first = frames[0]
    channels = first.layout.nb_channels
    arrays = [frame.to_ndarray() for frame in frames]
    if first.format.is_planar:
        samples = np.concatenate(arrays, axis=1).T
    else:
        samples = np.concatenate(arrays, axis=1).reshape(-1, channels)
    return Block(scaled(np.ascontiguousarray(samples)), first.sample_rate, _names(first))
