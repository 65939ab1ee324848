"""An opened sound, and the sentences that say why one is refused."""

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
"""a header may promise this many times what can be read before the file counts as cut off"""

_BLOCK_SAMPLES = 1 << 18

Note: TypeAlias = Callable[[str], None]
"""takes one sentence on a sound that is read all the same"""


class Block(NamedTuple):
    """Consecutive samples at one rate; `layout` names the channels where the file states them."""

    samples: Shaped[np.ndarray, "T channels"]
    rate: int
    layout: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Sound:
    """An opened sound; `seconds` is its exact length by the header, None where only decoding tells.

    The rate may change from block to block, as it does in joined files.
    """

    name: str
    seconds: float | None
    blocks: Iterator[Block]


def block_frames(channels: int) -> int:
    """Frames per block, so that a block stays small whatever the number of channels."""
    return max(1, _BLOCK_SAMPLES // channels)


def check_rate(name: str, rate: int) -> None:
    """Raises AudioError for a sample rate that cannot be resampled."""
    if not MIN_RATE <= rate <= MAX_RATE:
        raise AudioError(
            f"{name} has a sample rate of {rate} Hz; expected {MIN_RATE} to {MAX_RATE} Hz"
        )


def check_bytes(name: str, size: int, max_bytes: float | int) -> None:
    """Raises AudioTooLargeError where `size` is beyond the limit."""
    if size > max_bytes:
        raise AudioTooLargeError(f"{name} is larger than {max_bytes:g} bytes, the limit")


def check_promise(name: str, promised: float, found: float, note: Note) -> None:
    """Raises AudioError where far less than the `promised` seconds were found; else notes a lack.

    A header without a promise gives 0.
    """
    if promised > TRUNCATION * found:
        raise cut_off(name, promised, found)
    # Encoders pad and round: less than a quarter of a second is no news.
    if promised > found + 0.25:
        note(f"{name}: its header promises {promised:.2f} s and {found:.2f} s are there")


def cut_off(name: str, promised: float, found: float) -> AudioError:
    """The error of a file whose header promises more seconds than it holds."""
    return AudioError(
        f"{name} is cut off: its header promises {promised:.2f} s and {found:.2f} s are there; "
        "expected a complete file"
    )


def damaged(name: str) -> AudioError:
    """The error of a file of a known format that cannot be decoded."""
    return AudioError(f"{name} is damaged and cannot be decoded; expected a complete file")


def not_a_sound(name: str) -> AudioError:
    """The error of a file that no decoder knows."""
    return AudioError(f"{name} is not a sound in a known format; expected {ACCEPTED}")


def reason_of(error: Exception) -> str:
    """What went wrong, without line breaks."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return one_line(text) or type(error).__name__


def scaled(samples: Shaped[np.ndarray, "T channels"]) -> Shaped[np.ndarray, "T channels"]:
    """The samples as float32, full scale 1.

    Integers are scaled by the range of their type, unsigned ones about its middle.
    """
    if samples.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return samples.astype(np.float32, copy=False)
    half = 2.0 ** (8 * samples.dtype.itemsize - 1)
    middle = half if samples.dtype.kind == "u" else 0.0
    return ((samples.astype(np.float64) - middle) / half).astype(np.float32)
