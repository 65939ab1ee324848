"""Whether the sizes in the header of a WAV, RF64, AIFF or AU file agree with the file.

A recorder that crashes leaves sizes of 0 or of its last update; one that runs past 4 GiB leaves
them modulo 4 GiB. Then everything after the header is sound, and a view of the file fixes the
sizes.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

_MASK_NAMES = (
    ("FL", "FR", "FC", "LFE", "BL", "BR", "FLC", "FRC", "BC", "SL", "SR")
    + ("TC", "TFL", "TFC", "TFR", "TBL", "TBC", "TBR")
)  # fmt: skip
_EXTENSIBLE = 0xFFFE
_UNKNOWN = 0xFFFFFFFF
# At least this many bytes after the data that are not a chunk count as sound; fewer are padding.
_LEAST_REST = 4096
_TAGS = (b"ID3", b"TAG", b"APET", b"LIST", b"RIFF", b"FORM")


@dataclass(frozen=True)
class Wave:
    """The header of a WAV, RF64, AIFF or AU file: channel names, and patches that fix its sizes.

    `stated` and `found` are bytes of sound: according to the header, and in the file.
    """

    layout: tuple[str, ...] | None = None
    patches: Mapping[int, bytes] = field(default_factory=dict[int, bytes])
    stated: int = 0
    found: int = 0


class _Chunk(NamedTuple):
    """A chunk: its name, where its contents start, and their length according to the header."""

    name: bytes
    start: int
    size: int


def wave(path: Path, head: bytes) -> Wave | None:
    """The header of a WAV, RF64, AIFF or AU file; None for other files and malformed headers.

    Raises OSError.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if head[:4] in (b"RIFF", b"RF64", b"FORM") and head[8:11] in (b"WAV", b"AIF"):
            return _chunked(file, size, head)
        if head[:4] == b".snd" and len(head) >= 24:
            offset, stated = struct.unpack(">2I", head[4:12])
            if stated != _UNKNOWN and _runs_on(file, size, offset + stated):
                patches = {8: struct.pack(">I", _UNKNOWN)}
                return Wave(None, patches, stated, size - offset)
            return Wave()
    return None


def _chunked(file: BinaryIO, size: int, head: bytes) -> Wave | None:
    big_endian = head.startswith(b"FORM")
    order = ">" if big_endian else "<"
    layout: tuple[str, ...] | None = None
    places: dict[bytes, _Chunk] = {}
    for chunk in _chunks(file, size, order):
        places.setdefault(chunk.name, chunk)
        if chunk.name == b"fmt ":
            file.seek(chunk.start)
            layout = _layout(file.read(min(chunk.size, 40)))
        if chunk.name in (b"data", b"SSND"):
            return Wave(layout, *_mended(file, size, order, places, chunk))
    return None


def _chunks(file: BinaryIO, size: int, order: str) -> Iterator[_Chunk]:
    place = 12
    while place + 8 <= size:
        file.seek(place)
        name, length = struct.unpack(f"{order}4sI", file.read(8))
        yield _Chunk(name, place + 8, length)
        place += 8 + length + length % 2


def _mended(
    file: BinaryIO, size: int, order: str, places: Mapping[bytes, _Chunk], data: _Chunk
) -> tuple[dict[int, bytes], int, int]:
    """Patches that extend the data to the end of the file, none if the header is right; and the
    stated and the actual size of the data.
    """
    stated, wide = data.size, places.get(b"ds64")
    if wide is not None and stated == _UNKNOWN:
        file.seek(wide.start + 8)
        (stated,) = struct.unpack("<Q", file.read(8))
    found = size - data.start
    end = data.start + stated
    if (stated == _UNKNOWN and wide is None) or not _runs_on(file, size, end + end % 2):
        return {}, stated, found
    if wide is not None:
        sizes = struct.pack("<2Q", size - 8, found)
        return {wide.start: sizes, data.start - 4: struct.pack("<I", _UNKNOWN)}, stated, found
    patches = {place: struct.pack(f"{order}I", _UNKNOWN) for place in (4, data.start - 4)}
    if common := places.get(b"COMM"):
        # AIFF also states the number of frames.
        patches[common.start + 2] = struct.pack(">I", 0x7FFFFFFF)
    return patches, stated, found


def _runs_on(file: BinaryIO, size: int, end: int) -> bool:
    """Whether sound continues past `end`, rather than a chunk, a tag or padding."""
    rest = size - end
    if rest < _LEAST_REST:
        return False
    file.seek(end)
    sample = file.read(1 << 16)
    if sample.startswith(_TAGS) or not any(sample):
        return False
    name, lengths = sample[:4], struct.unpack("<I", sample[4:8]) + struct.unpack(">I", sample[4:8])
    is_chunk = all(32 <= byte < 127 for byte in name) and min(lengths) <= rest - 8
    return not is_chunk


def _layout(contents: bytes) -> tuple[str, ...] | None:
    """The channel names of an extensible format chunk; None for other chunks."""
    if len(contents) < 40:
        return None
    tag, channels = struct.unpack("<2H", contents[:4])
    (mask,) = struct.unpack("<I", contents[20:24])
    names = tuple(name for bit, name in enumerate(_MASK_NAMES) if mask >> bit & 1)
    return names if tag == _EXTENSIBLE and len(names) == channels else None


class Patched:
    """A file with some bytes replaced; a context manager that closes it."""

    def __init__(self, path: Path, patches: Mapping[int, bytes]) -> None:
        self._file = path.open("rb")
        self._patches = patches

    def __enter__(self) -> "Patched":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Like `io.RawIOBase.seek`."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Like `io.RawIOBase.tell`."""
        return self._file.tell()

    def read(self, size: int = -1, /) -> bytes:
        """Like `io.RawIOBase.read`."""
        start = self._file.tell()
        contents = bytearray(self._file.read(size))
        for place, patch in self._patches.items():
            low, high = max(start, place), min(start + len(contents), place + len(patch))
            if low < high:
                contents[low - start : high - start] = patch[low - place : high - place]
        return bytes(contents)
