"""An opened sound, and the errors for sounds that are rejected."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Shaped

from earwitness.errors import AudioError, AudioTooLargeError, one_line

MIN_RATE = 8_000
MAX_RATE = 768_000
ACCEPTED = (
    "a sound file in wav, flac, mp3, ogg, opus, aiff, m4a, aac, mp4, webm, mkv, mov, wma or "
    "another format that FFmpeg knows"
)
TRUNCATION = 1.05
"""a file counts as cut off if its header promises more than this many times what can be read"""

_BLOCK_SAMPLES = 1 << 18

Note: TypeAlias = Callable[[str], None]
"""receives one sentence about a sound that can be read anyway"""


class Block(NamedTuple):
    """Consecutive samples at one rate; `layout` names the channels where the file states them."""

    samples: Shaped[np.ndarray, "T channels"]
    rate: int
    layout: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Sound:
    """An opened sound; `seconds` is the exact length from its header, None if decoding is needed.

    The rate may change from block to block, as in joined files.
    """

    name: str
    seconds: float | None
    blocks: Iterator[Block]


def block_frames(channels: int) -> int:
    """Frames per block, so that a block stays small with any number of channels."""
    return max(1, _BLOCK_SAMPLES // channels)


def check_rate(name: str, rate: int) -> None:
    """Raises AudioError for a sample rate that cannot be resampled."""
    if not MIN_RATE <= rate <= MAX_RATE:
        raise AudioError(
            f"{name} has a sample rate of {rate} Hz; expected {MIN_RATE} to {MAX_RATE} Hz"
        )


def check_bytes(name: str, size: int, max_bytes: float | int) -> None:
    """Raises AudioTooLargeError if `size` is beyond the limit."""
    if size > max_bytes:
        raise AudioTooLargeError(f"{name} is larger than the limit of {max_bytes:g} bytes")


def check_promise(name: str, promised: float, found: float, note: Note) -> None:
    """Raises AudioError if far less than the `promised` seconds was found; else notes a shortfall.

    `promised` is 0 if the header states no length.
    """
    if promised > TRUNCATION * found:
        raise cut_off(name, promised, found)
    # Encoders pad and round: less than a quarter of a second is not worth a note.
    if promised > found + 0.25:
        note(f"{name}: its header promises {promised:.2f} s, but it holds {found:.2f} s")


def cut_off(name: str, promised: float, found: float) -> AudioError:
    """The error for a file whose header promises more seconds than it holds."""
    return AudioError(
        f"{name} is cut off: its header promises {promised:.2f} s, but it holds {found:.2f} s; "
        "expected a complete file"
    )


def damaged(name: str) -> AudioError:
    """The error for a file in a known format that cannot be decoded."""
    return AudioError(f"{name} is damaged and cannot be decoded; expected a complete file")


def not_a_sound(name: str) -> AudioError:
    """The error for a file that no decoder recognizes."""
    return AudioError(f"{name} is not a sound in a known format; expected {ACCEPTED}")


def reason_of(error: Exception) -> str:
    """What went wrong, without line breaks."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return one_line(text) or type(error).__name__


def scaled(samples: Shaped[np.ndarray, "T channels"]) -> Shaped[np.ndarray, "T channels"]:
    """The samples as float32, full scale 1.

    Integers are scaled by the range of their type, unsigned ones about its midpoint.
    """
    if samples.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return samples.astype(np.float32, copy=False)
    half = 2.0 ** (8 * samples.dtype.itemsize - 1)
    middle = half if samples.dtype.kind == "u" else 0.0
    return ((samples.astype(np.float64) - middle) / half).astype(np.float32)
