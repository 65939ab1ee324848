"""The duration stated in a header, for formats where FFmpeg estimates it: MP3, WMA, AVI.

Each function takes a file positioned at its first byte, and raises OSError.
"""

import re
import struct
from typing import BinaryIO

# The number of frames; a Xing tag has it if its lowest flag is set.
_MPEG_TAG = re.compile(
    rb"(?:Xing|Info)...[\x01\x03\x05\x07\x09\x0b\x0d\x0f](?P<xing>.{4})"
    rb"|VBRI.{10}(?P<vbri>.{4})",
    re.DOTALL,
)
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_HEADERS = 1 << 16


def mpeg_seconds(file: BinaryIO) -> float:
    """Seconds according to the tag in the first MPEG frame (Xing, Info or VBRI); 0 without one.

    The tag describes its own file, even if others were joined to it.
    """
    place, start = file.tell(), file.read(10)
    if start.startswith(b"ID3") and len(start) == 10:
        for power, byte in enumerate(reversed(start[6:])):
            place += (byte & 0x7F) << 7 * power
        place += 10
    file.seek(place)
    first = file.read(4096)
    found = _MPEG_TAG.search(first)
    if found is None or first[0] != 0xFF or first[2] >> 2 & 3 == 3:
        return 0.0
    version = first[1] >> 3 & 3  # 3: MPEG 1, 2: MPEG 2, 0: MPEG 2.5
    rate = (44100, 48000, 32000)[first[2] >> 2 & 3] // {3: 1, 2: 2}.get(version, 4)
    frames = int.from_bytes(found["xing"] or found["vbri"], "big")
    return frames * (1152 if version == 3 else 576) / rate


def asf_seconds(file: BinaryIO) -> float:
    """Seconds according to the file properties of an ASF file (WMA, WMV); 0 for a broadcast."""
    head = file.read(_HEADERS)
    place = head.find(_ASF_PROPERTIES)
    if place < 0 or len(head) < place + 92:
        return 0.0
    # Play time in 100 ns, send time, preroll in ms, flags.
    played, _, preroll, flags = struct.unpack("<3QI", head[place + 64 : place + 92])
    return 0.0 if flags & 1 else max(0.0, played / 1e7 - preroll / 1e3)


def avi_seconds(file: BinaryIO) -> float:
    """Seconds of the longest stream according to the stream headers of an AVI file."""
    head = file.read(_HEADERS)
    seconds, place = 0.0, head.find(b"strh")
    while place >= 0 and place + 44 <= len(head):
        scale, rate, start, length = struct.unpack("<4I", head[place + 28 : place + 44])
        if scale and rate and head[place + 8 : place + 12] in (b"auds", b"vids"):
            seconds = max(seconds, (start + length) * scale / rate)
        place = head.find(b"strh", place + 44)
    return seconds
