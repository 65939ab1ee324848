"""Sound from any source as mono float32 samples at one rate: decode, mix down, resample, limit.

`load`, `stream` and `duration` share one decoder that never holds more than one block. A sound that
cannot be read in full is an error: it is never padded or replaced with silence. Gaps in the file's
timestamps become silence, so that times stay correct.
"""

import math
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from os import PathLike, fsdecode
from pathlib import Path
from typing import Any, Protocol, TypeAlias, cast, runtime_checkable

import numpy as np
from jaxtyping import Float32

from earwitness.audio.decoding import decoded
from earwitness.audio.mixing import Mixer
from earwitness.audio.sound import (
    ACCEPTED,
    MIN_RATE,
    Block,
    Note,
    Sound,
    block_frames,
    check_bytes,
    check_rate,
    reason_of,
    scaled,
)
from earwitness.audio.tracks import Track, no_track
from earwitness.errors import AudioError, AudioTooLargeError
from earwitness.io.kinds import is_tuple

MAX_TARGET_RATE = 192_000
DEFAULT_MAX_SECONDS = 3 * 3600.0
DEFAULT_MAX_BYTES = 2 * 1024**3
# Full scale is 1; floats far beyond it are unscaled integers, or noise.
_MAX_LEVEL = 100.0


@runtime_checkable
class Readable(Protocol):
    """A binary file object, read from its current position to its end."""

    def read(self, size: int, /) -> Any: ...


AudioSource: TypeAlias = (
    str | PathLike[str] | bytes | bytearray | memoryview | Readable | tuple[Any, Any]
)


def unnoted(_: str) -> None:
    """Ignores a note."""


def load(
    source: AudioSource,
    rate: int,
    *,
    max_seconds: float | int | None = None,
    max_bytes: float | int | None = None,
    track: Track = None,
    note: Note = unnoted,
) -> Float32[np.ndarray, " T"]:
    """The whole sound, mono at `rate` Hz, full scale 1.

    `source` is a path, the bytes of a file, a binary file object, or `(array, sample_rate)` where
    the array is [T], [T, channels] or [channels, T] (the shorter axis is the channels) and integers
    are scaled by the range of their type. `track` selects an audio track by its number from 1 or
    its language; without it the file's default is read. `note` receives a sentence on anything odd
    about a sound that can be read anyway: other tracks, or a header that states another length.
    Channels are averaged, named ones weighted by position, and a mix that cancels out is repaired
    (see `audio.mixing`); resampling is soxr HQ. Times are those of the file: audio that starts late
    in a video begins with silence, and gaps of more than 0.1 s are kept.
    The limits default to `DEFAULT_MAX_SECONDS` and `DEFAULT_MAX_BYTES`; `math.inf` lifts them.
    Raises AudioTooLargeError beyond a limit, and AudioError for everything else: not a sound,
    empty, damaged, no such track, samples that are not finite or exceed 100 times full scale, a
    rate outside 8-768 kHz, and a truncated file, whose header promises over 5 % more than could be
    read. Ogg, untagged mp3, aac and ts files do not state their length: if truncated, what is left
    of them is the sound.
    """
    _check_target(rate)
    seconds = DEFAULT_MAX_SECONDS if max_seconds is None else max_seconds
    size = DEFAULT_MAX_BYTES if max_bytes is None else max_bytes
    with _opened(source, size, track, note) as sound:
        return np.concatenate(list(resampled(sound, rate, seconds)))


def stream(
    source: AudioSource,
    rate: int,
    block_seconds: float | int,
    *,
    max_seconds: float | int | None = None,
    max_bytes: float | int | None = None,
    track: Track = None,
    note: Note = unnoted,
) -> Iterator[Float32[np.ndarray, " T"]]:
    """Consecutive blocks of `load(source, rate)` in constant memory; only the last may be shorter.

    No limits unless given. Errors are those of `load`; a truncated or damaged file may raise only
    after the blocks that could be read.
    """
    _check_target(rate)
    if not (math.isfinite(block_seconds) and round(block_seconds * rate) >= 1):
        raise AudioError(
            f"expected blocks of at least one sample, 1/{rate} s, got {block_seconds} s"
        )
    seconds = math.inf if max_seconds is None else max_seconds
    size = math.inf if max_bytes is None else max_bytes
    with _opened(source, size, track, note) as sound:
        yield from _cut(resampled(sound, rate, seconds), round(block_seconds * rate))


def duration(source: AudioSource, *, track: Track = None) -> float:
    """Seconds of sound, from the header if it is exact, else by decoding.

    Raises the errors of `load`, except for limits; damage after the header may go undetected.
    """
    with _opened(source, math.inf, track, unnoted) as sound:
        seconds = sound.seconds
        if seconds is None:
            seconds = _decoded_seconds(sound)
        if seconds == 0:
            raise AudioError(f"{sound.name} holds no samples; expected {ACCEPTED}")
        return seconds


def _decoded_seconds(sound: Sound) -> float:
    frames: dict[int, int] = {}
    for block in sound.blocks:
        frames[block.rate] = frames.get(block.rate, 0) + len(block.samples)
    return sum(count / rate for rate, count in frames.items())


def resampled(
    sound: Sound, rate: int, max_seconds: float | int
) -> Iterator[Float32[np.ndarray, " T"]]:
    """Mono blocks of `sound` at `rate` Hz, of any length; at least one sample in total."""
    import soxr

    resampler: soxr.ResampleStream | None = None
    own, total, last = rate, 0, np.float32(0)

    def rest() -> Float32[np.ndarray, " T"]:
        """What the resampler still holds."""
        nothing = np.empty(0, dtype=np.float32)
        return nothing if resampler is None else resampler.resample_chunk(nothing, last=True)

    for block, block_rate in _mono(sound, max_seconds):
        if block_rate != own:
            tail = rest()
            total += len(tail)
            yield tail
            own = block_rate
            resampler = None
            if own != rate:
                resampler = soxr.ResampleStream(own, rate, 1, dtype="float32", quality="HQ")
        part = block if resampler is None else resampler.resample_chunk(block)
        total += len(part)
        last = block[-1]
        yield part
    tail = rest()
    # A sound too short for one sample at this rate is still a sound.
    yield tail if total + len(tail) else np.full(1, last, dtype=np.float32)


def _cut(
    parts: Iterator[Float32[np.ndarray, " _"]], size: int
) -> Iterator[Float32[np.ndarray, " _"]]:
    """The same samples in blocks of `size`; the last one may be shorter."""
    held: list[np.ndarray] = []
    count = 0
    for part in parts:
        held.append(part)
        count += len(part)
        if count < size:
            continue
        joined = np.concatenate(held)
        whole = count - count % size
        for start in range(0, whole, size):
            yield joined[start : start + size].copy()
        held, count = [joined[whole:]], count - whole
    if count:
        yield np.concatenate(held)


def _check_target(rate: int) -> None:
    if not MIN_RATE <= rate <= MAX_TARGET_RATE:
        raise AudioError(
            f"cannot resample to {rate} Hz; expected {MIN_RATE} to {MAX_TARGET_RATE} Hz"
        )


def _mono(
    sound: Sound, max_seconds: float | int
) -> Iterator[tuple[Float32[np.ndarray, " T"], int]]:
    """The sound as checked mono blocks, each with its rate."""
    seen = 0.0
    _check_seconds(sound.name, sound.seconds or 0.0, max_seconds)
    mixer = Mixer()
    for samples, rate, layout in sound.blocks:
        if not len(samples):
            continue
        seen += len(samples) / rate
        _check_seconds(sound.name, seen, max_seconds)
        # Written so that NaN fails too.
        if not np.abs(samples).max(initial=0.0) <= _MAX_LEVEL:
            raise AudioError(
                f"{sound.name} holds samples that are not finite or beyond {_MAX_LEVEL:g} times "
                "full scale; expected floats within about -1 to 1, or integers"
            )
        yield mixer.mono(samples, rate, layout), rate
    if not seen:
        raise AudioError(f"{sound.name} holds no samples; expected {ACCEPTED}")


def _check_seconds(name: str, seconds: float, max_seconds: float | int) -> None:
    # Sums of blocks may be off by less than a sample.
    if seconds > max_seconds + 1e-6:
        raise AudioTooLargeError(f"{name} is longer than the limit of {max_seconds:g} s")


@contextmanager
def _opened(source: object, max_bytes: float | int, track: Track, note: Note) -> Generator[Sound]:
    """`source`, opened; bytes and file objects via a temporary file, since mp4 needs seeking."""
    if is_tuple(source):
        if track not in (None, 1, "1"):
            raise no_track("the sound given as an array", track, 1, "it has one")
        yield _from_array(source, max_bytes)
    elif isinstance(source, str | PathLike):
        path = fsdecode(cast("str | PathLike[str]", source))
        with decoded(Path(path), repr(path), max_bytes, track, note) as sound:
            yield sound
    elif isinstance(source, bytes | bytearray | memoryview | Readable):
        with tempfile.TemporaryDirectory(prefix="earwitness-") as folder:
            path = Path(folder, "sound")
            name = _copy(cast("bytes | Readable", source), path, max_bytes)
            with decoded(path, name, max_bytes, track, note) as sound:
                yield sound
    else:
        raise AudioError(
            f"cannot read a sound from {type(source).__name__}; expected a path, bytes, "
            "a binary file object or (array, sample_rate)"
        )


def _copy(
    source: bytes | bytearray | memoryview | Readable, path: Path, max_bytes: float | int
) -> str:
    """Writes the source to `path`; returns its name for messages."""
    if not isinstance(source, Readable):
        check_bytes("the sound given as bytes", memoryview(source).nbytes, max_bytes)
        path.write_bytes(source)
        return "the sound given as bytes"
    label = getattr(source, "name", None)
    name = repr(label) if isinstance(label, str) else "the sound given as a file object"
    size = 0
    try:
        with path.open("wb") as copy:
            while chunk := source.read(1 << 20):
                if not isinstance(chunk, bytes | bytearray | memoryview):
                    raise AudioError(f"{name} is open as text; expected a file opened in mode 'rb'")
                size += copy.write(cast("bytes", chunk))
                check_bytes(name, size, max_bytes)
    except UnicodeDecodeError:
        raise AudioError(f"{name} is open as text; expected a file opened in mode 'rb'") from None
    except (OSError, ValueError) as error:
        raise AudioError(f"{name} cannot be read ({reason_of(error)})") from None
    return name


def _from_array(source: tuple[Any, ...], max_bytes: float | int) -> Sound:
    """The sound of `(array, sample_rate)`."""
    name = "the sound given as an array"
    if len(source) != 2:
        raise AudioError(f"{name} has {len(source)} elements; expected (array, sample_rate)")
    try:
        samples, rate = np.asarray(source[0]), float(source[1])
    except (TypeError, ValueError, RuntimeError) as error:
        raise AudioError(
            f"{name} cannot be read ({reason_of(error)}); expected (array, sample_rate)"
        ) from None
    if samples.dtype.kind not in "iuf":
        raise AudioError(f"{name} has dtype {samples.dtype}; expected integers or floats")
    if samples.ndim not in (1, 2) or samples.size == 0:
        raise AudioError(
            f"{name} has shape {list(samples.shape)}; "
            "expected [T], [T, channels] or [channels, T], not empty"
        )
    if not rate.is_integer():
        raise AudioError(f"{name} has a sample rate of {rate:g} Hz; expected a whole number")
    check_bytes(name, samples.nbytes, max_bytes)
    if samples.ndim == 1:
        samples = samples[:, None]
    elif samples.shape[0] < samples.shape[1]:
        samples = samples.T
    step = block_frames(samples.shape[1])
    own = int(rate)
    check_rate(name, own)
    blocks = (Block(scaled(samples[i : i + step]), own) for i in range(0, len(samples), step))
    return Sound(name, len(samples) / own, blocks)
