"""Sound files decoded once to 16-bit mono, trimmed and measured; cached as one array on request."""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int16

from earwitness.errors import DataError
from earwitness.io.atomic import replacing, write_text

_CACHE_FORMAT = 1
_FRAME_SECONDS = 0.02
_TRIM_DB = 45.0
_ACTIVE_DB = 20.0
_STEADY_DB = 12.0


def decode_folder(
    folder: Path, paths: Sequence[str], rate: int, cache_folder: Path | None
) -> tuple[Int16[np.ndarray, " P"], list[dict[str, Any]], Path | None]:
    """All samples of the files at `paths`, each one's place and measures, and the file of the
    cache.

    With `cache_folder` the samples are mapped into memory from a file there, written where missing;
    the file's name changes with the paths and their sizes.

    Raises:
        DataError: a file is missing, unreadable, or holds only silence.

    """
    if cache_folder is None:
        return (*_decode_all(folder, paths, rate), None)
    stem = cache_folder / f"sounds-{rate}-{_fingerprint(folder, paths, rate)}"
    pool_path, index_path = stem.with_suffix(".npy"), stem.with_suffix(".json")
    if not index_path.is_file() or not pool_path.is_file():
        pool, measures = _decode_all(folder, paths, rate)
        with replacing(pool_path, DataError) as file:
            np.save(file, pool, allow_pickle=False)
        write_text(index_path, json.dumps(measures), DataError)
    measures = json.loads(index_path.read_text(encoding="utf-8"))
    return np.load(pool_path, mmap_mode="r", allow_pickle=False), measures, pool_path


def _fingerprint(folder: Path, paths: Sequence[str], rate: int) -> str:
    digest = hashlib.sha256(f"{_CACHE_FORMAT} {rate}".encode())
    for path in paths:
        try:
            size = (folder / path).stat().st_size
        except OSError:
            raise DataError(f"{folder / path}: named in the manifest, but no such file") from None
        digest.update(f"{path} {size}\n".encode())
    return digest.hexdigest()[:16]


def _decode_all(
    folder: Path, paths: Sequence[str], rate: int
) -> tuple[Int16[np.ndarray, " P"], list[dict[str, Any]]]:
    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        decoded = list(threads.map(_decode, [folder / path for path in paths], repeat(rate)))
    pool = np.concatenate([samples for samples, _ in decoded])
    measures: list[dict[str, Any]] = []
    start = 0
    for samples, measure in decoded:
        measures.append({"start": start, "stop": start + len(samples), **measure})
        start += len(samples)
    return pool, measures


def _decode(path: Path, rate: int) -> tuple[Int16[np.ndarray, " T"], dict[str, float]]:
    import soundfile
    import soxr

    try:
        samples, own_rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError) as error:
        raise DataError(f"{path}: cannot be read as a sound ({error})") from None
    mono = samples.mean(axis=1)
    if own_rate != rate:
        mono = soxr.resample(mono, own_rate, rate)
    peak = float(np.abs(mono).max(initial=0.0))
    if not np.isfinite(peak) or peak == 0.0:
        raise DataError(f"{path}: holds only silence or invalid samples; expected a sound")
    return measure(mono / peak, rate)


def measure(
    mono: Float32[np.ndarray, " T"], rate: int
) -> tuple[Int16[np.ndarray, " _"], dict[str, float]]:
    """The samples without leading and trailing silence as 16-bit integers, their level and
    steadiness.
    """
    frame = max(1, int(rate * _FRAME_SECONDS))
    levels = frame_levels_db(mono, frame)
    loud = np.flatnonzero(levels > levels.max() - _TRIM_DB)
    start, stop = max(0, int(loud[0]) - 1) * frame, min(len(mono), (int(loud[-1]) + 2) * frame)
    kept = mono[start:stop]
    levels = levels[start // frame : -(-stop // frame)]
    active = levels[levels > levels.max() - _ACTIVE_DB]
    level_db = float(10 * np.log10(np.mean(10 ** (active / 10))))
    high = np.quantile(levels, 0.9)
    steadiness = float(np.mean(levels > high - _STEADY_DB))
    samples = np.round(kept * 32000).clip(-32768, 32767).astype(np.int16)
    return samples, {"level_db": level_db, "steadiness": steadiness}


def frame_levels_db(samples: Float32[np.ndarray, " T"], frame: int) -> Float32[np.ndarray, " F"]:
    """The level of every `frame` samples in dBFS; the last frame is zero-padded."""
    padded = np.pad(samples, (0, -len(samples) % frame)).reshape(-1, frame)
    power = np.einsum("ft,ft->f", padded, padded) / frame
    return (10 * np.log10(power + 1e-12)).astype(np.float32)
