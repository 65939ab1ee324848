"""Where the parts of concatenated files start and end: chained Ogg, WAV, AIFF, AU, MP4, and formats
that begin with an unmistakable magic number.

Formats without a header for the whole file (MP3, AAC, AC-3, MPEG-TS, Matroska) need none of this:
their demuxers simply read on.
"""

import mmap
import re
import struct
from pathlib import Path
from typing import BinaryIO

_CHUNKED = (b"RIFF", b"RIFX", b"RF64", b"FORM")
# CAF, ASF (wma), FLV, TTA, AMR, and WavPack's first block: it has index 0 and begins a frame.
_MARKS = re.compile(
    rb"caff\x00\x01..desc"
    rb"|\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c"
    rb"|FLV\x01[\x00-\x05]\x00\x00\x00\x09\x00\x00\x00\x00"
    rb"|TTA1[\x01\x03]\x00[\x01-\x10]\x00[\x08\x10\x18\x20]\x00"
    rb"|#!AMR(?:-WB)?(?:_MC1\.0)?\n"
    rb"|wvpk.{4}.\x04.{6}\x00{4}.{4}."
    rb"[\x08-\x0f\x18-\x1f\x28-\x2f\x38-\x3f\x48-\x4f\x58-\x5f\x68-\x6f\x78-\x7f]",
    re.DOTALL,
)
_MARK_LENGTH = 32


def links(path: Path, head: bytes) -> list[tuple[int, int]]:
    """Where each of the files joined in `path`, which begins with `head`, starts and ends.

    One for an ordinary file, none for a badly damaged Ogg file. Raises OSError.
    """
    if head.startswith(b"OggS"):
        return ogg_links(path)
    if mark := _MARKS.match(head):
        return _marked(path, mark[0][:4])
    size = path.stat().st_size
    starts = [0]
    with path.open("rb") as file:
        while (end := _end(file, starts[-1], size)) < size:
            starts.append(end)
    return list(zip(starts, [*starts[1:], size], strict=True))


def _marked(path: Path, kind: bytes) -> list[tuple[int, int]]:
    """The links of a file that begins with a magic number, whose first four bytes are `kind`."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        starts: list[int] = []
        place = view.find(kind)
        while place >= 0:
            if _MARKS.match(view[place : place + _MARK_LENGTH]):
                starts.append(place)
            place = view.find(kind, place + 4)
        return list(zip(starts, [*starts[1:], len(view)], strict=True))


def _end(file: BinaryIO, start: int, size: int) -> int:
    """Where the file that begins at `start` is followed by one of its kind, else `size`."""
    file.seek(start)
    head = file.read(32)
    if len(head) < 32:
        return size
    if head[4:8] == b"ftyp":
        return _next_movie(file, start, size)
    if head[:4] in _CHUNKED:
        order = "<" if head[:4] in (b"RIFF", b"RF64") else ">"
        (length,) = struct.unpack(f"{order}I", head[4:8])
        if head[:4] == b"RF64" and head[12:16] == b"ds64":
            (length,) = struct.unpack("<Q", head[20:28])
        end, kind = start + 8 + length, head[8:12]
    elif head[:4] == b".snd":
        offset, length = struct.unpack(">2I", head[4:12])
        end, kind = start + offset + length, b""
    else:
        return size
    if end >= size:
        # A broken header may give an impossible offset.
        return size
    # Chunks of odd length are followed by a padding byte, which some programs omit.
    for place in (end, end + 1):
        file.seek(place)
        if (follows := file.read(12))[:4] == head[:4] and follows[8:].startswith(kind):
            return place
    return size


def _next_movie(file: BinaryIO, start: int, size: int) -> int:
    """Where the next `ftyp` box of an MP4 file is, which begins with one; else `size`."""
    place = start
    while place + 8 <= size:
        file.seek(place)
        head = file.read(16)
        length, kind = struct.unpack(">I4s", head[:8])
        if kind == b"ftyp" and place > start:
            return place
        if length == 1 and len(head) == 16:
            (length,) = struct.unpack(">Q", head[8:])
        if length < 8:
            # 0 means to the end of the file; other values below 8 are invalid.
            return size
        place += length
    return size


def ogg_links(path: Path) -> list[tuple[int, int]]:
    """Where the links of a chained Ogg file start and end; one for an ordinary file.

    A link begins with the first pages of all its streams, back to back. Raises OSError.
    """
    starts: list[int] = []
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        place, expected = view.find(b"OggS\x00\x02"), -1
        while place >= 0:
            # The first page of a stream has the number 0.
            if view[place + 18 : place + 22] == bytes(4):
                if place != expected:
                    starts.append(place)
                expected = _page_end(view, place)
            place = view.find(b"OggS\x00\x02", place + 4)
        ends = [*starts[1:], len(view)]
    return list(zip(starts, ends, strict=False))


def _page_end(view: mmap.mmap, place: int) -> int:
    header = view[place : place + 27]
    if len(header) < 27:
        return place + len(header)
    segments = view[place + 27 : place + 27 + header[26]]
    return place + 27 + header[26] + sum(segments)


def is_joined_flac(path: Path) -> bool:
    """Whether a second FLAC stream follows the first. Raises OSError."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        return view.find(b"fLaC\x00\x00\x00\x22", 8) >= 0
