"""Sound from any source as mono float32 samples at one rate: decode, mix down, resample, limit.

libsndfile (soundfile) reads what it can; the containers it does not know go through an ffmpeg pipe.
`load`, `stream` and `duration` share one decoder that never holds more than one block. A sound that
cannot be read in full is an error: no padding, no silence in its place.
"""

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike, fsdecode
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Float32, Shaped

from earwitness.audio.decoding import (
    ACCEPTED,
    MAX_RATE,
    MIN_RATE,
    TRUNCATION,
    Sound,
    block_frames,
    check_bytes,
    cut_off,
    decoded,
    one_line,
)
from earwitness.errors import AudioError, AudioTooLargeError

DEFAULT_MAX_SECONDS = 3 * 3600.0
DEFAULT_MAX_BYTES = 2 * 1024**3
# Full scale is 1; floats far beyond it are integers that were never scaled, or noise.
_MAX_LEVEL = 100.0


@runtime_checkable
class Readable(Protocol):
    """A binary file object; it is read from its current position to its end."""

    def read(self, size: int, /) -> Any: ...


AudioSource: TypeAlias = (
    str | PathLike[str] | bytes | bytearray | memoryview | Readable | tuple[Any, Any]
)


def load(
    source: AudioSource,
    rate: int,
    *,
    max_seconds: float | int | None = None,
    max_bytes: float | int | None = None,
) -> Float32[np.ndarray, " T"]:
    """The whole sound, mono at `rate` Hz, full scale 1.

    `source` is a path, the bytes of a file, a binary file object, or `(array, sample_rate)` where
    the array is [T], [T, channels] or [channels, T] (the shorter axis is the channels) and integers
    are scaled by the range of their type. Channels are averaged; resampling is soxr HQ.
    The limits default to `DEFAULT_MAX_SECONDS` and `DEFAULT_MAX_BYTES`; `math.inf` lifts them.
    Raises AudioTooLargeError beyond a limit, MissingDependencyError where the file needs ffmpeg and
    there is none, and AudioError for all else: not a sound, empty, damaged, samples that are not
    finite or lie beyond 100 times full scale, a rate outside 8-192 kHz, and a cut file, namely
    one whose header promises more than 5 % more than could be read. Ogg, tagless mp3, aac, wma,
    avi and ts files do not state their length: of those, what is left is the sound.
    """
    _check_rate(rate)
    seconds = DEFAULT_MAX_SECONDS if max_seconds is None else max_seconds
    size = DEFAULT_MAX_BYTES if max_bytes is None else max_bytes
    with _opened(source, size) as sound:
        return np.concatenate(list(_resampled(sound, rate, seconds)))


def stream(
    source: AudioSource,
    rate: int,
    block_seconds: float | int,
    *,
    max_seconds: float | int | None = None,
    max_bytes: float | int | None = None,
) -> Iterator[Float32[np.ndarray, " T"]]:
    """Consecutive blocks of `load(source, rate)` in constant memory; only the last may be shorter.

    Without limits unless given. Errors are those of `load`; a cut or damaged file may show only
    after the blocks that could be read.
    """
    _check_rate(rate)
    if not (math.isfinite(block_seconds) and round(block_seconds * rate) >= 1):
        raise AudioError(
            f"a block of {block_seconds} s cannot be cut; give at least one sample, 1/{rate} s"
        )
    seconds = math.inf if max_seconds is None else max_seconds
    with _opened(source, math.inf if max_bytes is None else max_bytes) as sound:
        yield from _cut(_resampled(sound, rate, seconds), round(block_seconds * rate))


def duration(source: AudioSource) -> float:
    """Seconds of sound, by the header where libsndfile knows it exactly, else by decoding.

    Raises as `load`, without its limits; damage behind the header of a file goes unseen.
    """
    with _opened(source, math.inf) as sound:
        frames = sound.frames
        if frames is None:
            frames = sum(len(block) for block in sound.blocks)
        if frames == 0:
            raise AudioError(f"{sound.name} holds no samples; expected {ACCEPTED}")
        return frames / sound.rate


def _resampled(
    sound: Sound, rate: int, max_seconds: float | int
) -> Iterator[Float32[np.ndarray, " T"]]:
    """Mono blocks of `sound` at `rate` Hz, of any length; at least one sample in all."""
    if rate == sound.rate:
        yield from _mono(sound, max_seconds)
        return
    import soxr

    resampler = soxr.ResampleStream(sound.rate, rate, 1, dtype="float32", quality="HQ")
    total = 0
    for block in _mono(sound, max_seconds):
        part = resampler.resample_chunk(block)
        total += len(part)
        yield part
    tail = resampler.resample_chunk(np.empty(0, dtype=np.float32), last=True)
    if total + len(tail) == 0:
        raise AudioError(f"{sound.name} is too short for one sample at {rate} Hz")
    yield tail


def _cut(
    parts: Iterator[Float32[np.ndarray, " _"]], size: int
) -> Iterator[Float32[np.ndarray, " _"]]:
    """The same samples in blocks of `size`, the last one shorter."""
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


def _check_rate(rate: int) -> None:
    if not MIN_RATE <= rate <= MAX_RATE:
        raise AudioError(f"cannot resample to {rate} Hz; accepted are {MIN_RATE} to {MAX_RATE} Hz")


def _mono(sound: Sound, max_seconds: float | int) -> Iterator[Float32[np.ndarray, " T"]]:
    """The mean of the channels, block by block, with every check that needs the samples."""
    _check_seconds(sound, sound.frames or 0, max_seconds)
    seen = 0
    for block in sound.blocks:
        seen += len(block)
        _check_seconds(sound, seen, max_seconds)
        # Written so that NaN fails too.
        if not np.abs(block).max(initial=0.0) <= _MAX_LEVEL:
            raise AudioError(
                f"{sound.name} holds samples that are not finite or beyond {_MAX_LEVEL:g} times "
                "full scale; expected floats within about -1 to 1, or integers"
            )
        yield np.ascontiguousarray(block.mean(axis=1), dtype=np.float32)
    if seen == 0:
        raise AudioError(f"{sound.name} holds no samples; expected {ACCEPTED}")
    if sound.frames is not None and sound.frames > TRUNCATION * seen:
        raise cut_off(sound.name, sound.frames / sound.rate, seen / sound.rate)


def _check_seconds(sound: Sound, frames: int, max_seconds: float | int) -> None:
    if frames > max_seconds * sound.rate:
        raise AudioTooLargeError(
            f"{sound.name} is longer than {max_seconds:g} s, the limit in force"
        )


@contextmanager
def _opened(source: object, max_bytes: float | int) -> Iterator[Sound]:
    """`source` opened; bytes and file objects through a temporary file, as mp4 needs seeking."""
    if isinstance(source, tuple):
        yield _from_array(source, max_bytes)
    elif isinstance(source, str | PathLike):
        path = fsdecode(source)
        with decoded(Path(path), repr(path), max_bytes) as sound:
            yield sound
    elif isinstance(source, bytes | bytearray | memoryview | Readable):
        with tempfile.TemporaryDirectory(prefix="earwitness-") as folder:
            path = Path(folder, "sound")
            name = _copy(source, path, max_bytes)
            with decoded(path, name, max_bytes) as sound:
                yield sound
    else:
        raise AudioError(
            f"cannot read a sound from {type(source).__name__}; accepted are a path, bytes, "
            "a binary file object or (array, sample_rate)"
        )


def _copy(
    source: bytes | bytearray | memoryview | Readable, path: Path, max_bytes: float | int
) -> str:
    """Writes the source to `path`; its name for messages."""
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
                size += copy.write(chunk)
                check_bytes(name, size, max_bytes)
    except UnicodeDecodeError:
        raise AudioError(f"{name} is open as text; expected a file opened in mode 'rb'") from None
    except (OSError, ValueError) as error:
        raise AudioError(f"{name} cannot be read ({one_line(error)})") from None
    return name


def _from_array(source: tuple[Any, ...], max_bytes: float | int) -> Sound:
    """The sound of `(array, sample_rate)`."""
    name = "the sound given as an array"
    if len(source) != 2:
        raise AudioError(f"{name} has {len(source)} parts; expected (array, sample_rate)")
    try:
        samples, rate = np.asarray(source[0]), float(source[1])
    except (TypeError, ValueError, RuntimeError) as error:
        raise AudioError(
            f"{name} cannot be read ({one_line(error)}); expected (array, sample_rate)"
        ) from None
    if samples.dtype.kind not in "iuf":
        raise AudioError(f"{name} has dtype {samples.dtype}; expected integers or floats")
    if samples.ndim not in (1, 2) or samples.size == 0:
        raise AudioError(
            f"{name} has shape {list(samples.shape)}; "
            "expected [T], [T, channels] or [channels, T], none of them 0"
        )
    if not rate.is_integer():
        raise AudioError(f"{name} has a sample rate of {rate:g} Hz; expected a whole number")
    check_bytes(name, samples.nbytes, max_bytes)
    if samples.ndim == 1:
        samples = samples[:, None]
    elif samples.shape[0] < samples.shape[1]:
        samples = samples.T
    step = block_frames(samples.shape[1])
    blocks = (_scaled(samples[i : i + step]) for i in range(0, len(samples), step))
    return Sound(name, int(rate), len(samples), blocks)


def _scaled(block: Shaped[np.ndarray, "T channels"]) -> Float32[np.ndarray, "T channels"]:
    """The block as float32; integers by the range of their type, unsigned ones about its middle."""
    if block.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return block.astype(np.float32)
    half = 2.0 ** (8 * block.dtype.itemsize - 1)
    middle = half if block.dtype.kind == "u" else 0.0
    return ((block.astype(np.float64) - middle) / half).astype(np.float32)
