"""Labelled sounds in memory: decoded once, cached as one array, and split by recording.

A folder of sounds is a `manifest.csv` with the columns `path` and `label` and, where known, `source`,
`kind` (the licence family), `origin` (where the file was cut from) or `recording` (its name outright).
"""

import csv
import hashlib
import json
import os
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Int16

from earwitness.config import tomllib
from earwitness.errors import DataError

Split = Literal["train", "heldout", "all"]
Row = dict[str, str]

_CACHE_FORMAT = 1
_FRAME_SECONDS = 0.02
_TRIM_DB = 45.0
_ACTIVE_DB = 20.0
_STEADY_DB = 12.0
_MIN_SPLIT_RECORDINGS = 4


@dataclass(frozen=True)
class Clip:
    """One labelled sound: samples `start` to `stop` of its bank's pool.

    level_db is the RMS of its active frames (those within 20 dB of the loudest), in dB of full scale;
    steadiness is the share of frames within 12 dB of the loudest tenth: near 1 for rain, low for barks.
    """

    path: str
    label: str
    recording: str
    start: int
    stop: int
    level_db: float
    steadiness: float
    description: str = ""

    def __len__(self) -> int:
        return self.stop - self.start


class SoundBank:
    """Sounds by label, in one shared array of 16-bit samples."""

    def __init__(
        self,
        pool: Int16[np.ndarray, " P"],
        clips: Sequence[Clip],
        rate: int,
        pool_path: Path | None = None,
    ) -> None:
        """Raises DataError where `clips` is empty. `pool_path` lets a copy in another process share the pool."""
        if not clips:
            raise DataError("a sound bank without any sound; expected at least one clip")
        self.rate = rate
        self._pool = pool
        self._pool_path = pool_path
        self._clips = tuple(clips)
        self._index()

    @classmethod
    def load(
        cls,
        folder: Path | str,
        rate: int = 16000,
        exclude_kinds: Sequence[str] = ("NC-ND",),
        split: Split = "train",
        heldout_share: float = 0.12,
        cache: Path | str | None = None,
    ) -> "SoundBank":
        """The sounds of `folder` at `rate` Hz, mono, trimmed; one side of the split by recording.

        With `cache` (a folder, made if missing) the decoded sounds are written there once and mapped
        into memory afterwards, shared by every process that loads them. The sides do not depend on
        `exclude_kinds`.

        Raises:
            DataError: no manifest, a column or file that is missing or unreadable, or nothing left.
        """
        folder = Path(folder)
        if split not in ("train", "heldout", "all"):
            raise DataError(f"split {split!r}: expected 'train', 'heldout' or 'all'")
        rows = read_manifest(folder)
        pool, measures, pool_path = _decoded(folder, rows, rate, Path(cache) if cache else None)
        heldout = heldout_recordings(rows, heldout_share)
        clips = [
            Clip(
                row["path"],
                row["label"],
                recording_of(row),
                description=(row.get("description") or "").lower(),
                **measure,
            )
            for row, measure in zip(rows, measures, strict=True)
            if row.get("kind", "") not in exclude_kinds
            and (split == "all" or (recording_of(row) in heldout) == (split == "heldout"))
        ]
        if not clips:
            raise DataError(f"{folder}: no sounds left for split {split!r} without {exclude_kinds}")
        return cls(pool, clips, rate, pool_path)

    def _index(self) -> None:
        labels: dict[str, list[Clip]] = defaultdict(list)
        for clip in self._clips:
            labels[clip.label].append(clip)
        self._choices = {label: _Choice(clips) for label, clips in sorted(labels.items())}
        self._labels = tuple(self._choices)

    def _choice(self, name: str) -> "_Choice | None":
        """The clips that `name` stands for: a label, or "label:word" for a word of the description."""
        if name not in self._choices and ":" in name:
            label, _, word = name.partition(":")
            known = self._choices.get(label)
            clips = [] if known is None else known.with_word(word)
            if clips:
                self._choices[name] = _Choice(clips)
        return self._choices.get(name)

    def __getstate__(self) -> dict[str, Any]:
        """The bank for another process: the path of the pool where it has one, not its samples."""
        pool = None if self._pool_path else np.asarray(self._pool)
        return {"rate": self.rate, "path": self._pool_path, "pool": pool, "clips": self._clips}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.rate, self._pool_path, self._clips = state["rate"], state["path"], state["clips"]
        path = self._pool_path
        self._pool = np.load(path, mmap_mode="r", allow_pickle=False) if path else state["pool"]
        self._index()

    def __len__(self) -> int:
        return len(self._clips)

    def __iter__(self) -> Iterator[Clip]:
        return iter(self._clips)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels with at least one sound, in alphabetical order."""
        return self._labels

    def count(self, name: str) -> int:
        """The number of clips of the label (or "label:word") `name`; 0 for an unknown one."""
        choice = self._choice(name)
        return choice.size if choice else 0

    def recordings(self, name: str) -> tuple[str, ...]:
        """The names of the recordings that hold the label (or "label:word") `name`."""
        choice = self._choice(name)
        return tuple(choice.groups) if choice else ()

    def pick(self, names: Sequence[str], rng: np.random.Generator) -> Clip:
        """A random clip of one of `names` (labels, or "label:word"); those without sounds are passed over.

        A label, and within it a recording, is drawn by the square root of its number of clips, so that
        a recording cut into fifty pieces does not drown one that is whole.

        Raises:
            DataError: none of `names` has a sound.
        """
        choices = [choice for choice in map(self._choice, names) if choice]
        if not choices:
            raise DataError(f"no sound for {' or '.join(map(repr, names))} in this bank")
        choice = choices[0]
        if len(choices) > 1:
            chances = _cumulative(np.sqrt([choice.size for choice in choices]))
            choice = choices[int(np.searchsorted(chances, rng.random(), side="right"))]
        return choice.draw(rng)

    def sibling(self, clip: Clip, rng: np.random.Generator) -> Clip:
        """A random clip of the label, recording and description of `clip`, often itself."""
        clips = self._choices[clip.label].groups[clip.recording]
        other = clips[int(rng.integers(len(clips)))]
        return other if other.description == clip.description else clip

    def samples(self, clip: Clip) -> Float32[np.ndarray, " T"]:
        """The samples of `clip`, scaled so that its active frames have an RMS of 1."""
        scale = np.float32(10 ** (-clip.level_db / 20) / 32768)
        return self._pool[clip.start : clip.stop].astype(np.float32) * scale


class _Choice:
    """Clips grouped by recording, with the chances to draw each recording."""

    def __init__(self, clips: Sequence[Clip]) -> None:
        self.groups: dict[str, list[Clip]] = defaultdict(list)
        for clip in clips:
            self.groups[clip.recording].append(clip)
        self.size = len(clips)
        self._lists = list(self.groups.values())
        self._chances = _cumulative(np.sqrt([len(group) for group in self._lists]))

    def with_word(self, word: str) -> list[Clip]:
        pattern = re.compile(rf"\b{re.escape(word)}\b")
        return [clip for group in self._lists for clip in group if pattern.search(clip.description)]

    def draw(self, rng: np.random.Generator) -> Clip:
        group = self._lists[int(np.searchsorted(self._chances, rng.random(), side="right"))]
        return group[int(rng.integers(len(group)))]


def read_manifest(folder: Path) -> list[Row]:
    """The rows of `folder`/manifest.csv. Raises DataError where it is missing or lacks a column."""
    path = folder / "manifest.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; a CSV with the columns path,label was expected") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable CSV file ({error})") from None
    if not rows:
        raise DataError(f"{path}: no rows; expected one sound a row")
    for number, row in enumerate(rows, start=2):
        for column in ("path", "label"):
            if not row.get(column):
                raise DataError(f"{path}: row {number} has no '{column}'; every sound needs a path and a label")
    return rows


def recording_of(row: Row) -> str:
    """The name of the recording that the sound of `row` was cut from.

    Its `recording` column, else what the rules of recordings.toml read from `origin`, else its path.
    Doubt falls on the side of one recording: numbered files of one name count as one.
    """
    if row.get("recording"):
        return row["recording"]
    source, _, name = (row.get("origin") or row["path"]).rpartition("@")
    if source:
        name = name.partition(":")[2] or name
    for pattern, recording in _recording_rules():
        match = pattern.search(name)
        if match:
            text = recording.format(**match.groupdict())
            return text if text.startswith("freesound:") else f"{row.get('source') or source}:{text}"
    return row["path"]


def heldout_recordings(rows: Sequence[Row], share: float) -> frozenset[str]:
    """The recordings kept apart: about `share` of the clips of every label with enough recordings.

    Recordings are taken in the order of their hash, so adding sounds moves few of them. A label with
    fewer than four recordings keeps all of them for training. A recording with several labels counts
    for its most frequent one.

    Raises:
        DataError: `share` lies outside 0 to 0.5.
    """
    if not 0 <= share <= 0.5:
        raise DataError(f"heldout_share {share}: expected a number from 0 to 0.5")
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for row in rows:
        counts[recording_of(row)][row["label"]] += 1
    by_label: dict[str, dict[str, int]] = defaultdict(dict)
    for recording, labels in counts.items():
        main = max(sorted(labels), key=lambda label: labels[label])
        by_label[main][recording] = sum(labels.values())
    heldout: set[str] = set()
    for sizes in by_label.values():
        if len(sizes) >= _MIN_SPLIT_RECORDINGS and share > 0:
            heldout |= _fill(sizes, max(1, round(share * sum(sizes.values()))))
    return frozenset(heldout)


def _fill(sizes: dict[str, int], budget: int) -> set[str]:
    chosen: set[str] = set()
    for recording in sorted(sizes, key=lambda name: hashlib.sha256(name.encode()).digest()):
        if sizes[recording] <= budget:
            chosen.add(recording)
            budget -= sizes[recording]
    return chosen


@cache
def _recording_rules() -> tuple[tuple[re.Pattern[str], str], ...]:
    text = resources.files("earwitness.data").joinpath("recordings.toml").read_text("utf-8")
    return tuple((re.compile(rule["name"]), rule["recording"]) for rule in tomllib.loads(text)["rule"])


def _cumulative(weights: np.ndarray) -> np.ndarray:
    total = np.cumsum(weights, dtype=np.float64)
    return total[:-1] / total[-1]


def _decoded(
    folder: Path, rows: Sequence[Row], rate: int, cache_folder: Path | None
) -> tuple[Int16[np.ndarray, " P"], list[dict[str, Any]], Path | None]:
    if cache_folder is None:
        return (*_decode_all(folder, rows, rate), None)
    stem = cache_folder / f"sounds-{rate}-{_fingerprint(folder, rows, rate)}"
    pool_path, index_path = stem.with_suffix(".npy"), stem.with_suffix(".json")
    if not index_path.is_file() or not pool_path.is_file():
        pool, measures = _decode_all(folder, rows, rate)
        cache_folder.mkdir(parents=True, exist_ok=True)
        _replace(pool_path, lambda path: np.save(path, pool, allow_pickle=False))
        _replace(index_path, lambda path: path.write_text(json.dumps(measures), encoding="utf-8"))
    measures = json.loads(index_path.read_text(encoding="utf-8"))
    return np.load(pool_path, mmap_mode="r", allow_pickle=False), measures, pool_path


def _replace(path: Path, write: Any) -> None:
    """Writes beside `path` and moves into place, so that a reader never meets half a file."""
    handle, name = tempfile.mkstemp(suffix=path.suffix, dir=path.parent)
    os.close(handle)
    write(Path(name))
    Path(name).replace(path)


def _fingerprint(folder: Path, rows: Sequence[Row], rate: int) -> str:
    digest = hashlib.sha256(f"{_CACHE_FORMAT} {rate}".encode())
    for row in rows:
        try:
            size = (folder / row["path"]).stat().st_size
        except OSError:
            raise DataError(f"{folder / row['path']}: named in the manifest, but no such file") from None
        digest.update(f"{row['path']} {size}\n".encode())
    return digest.hexdigest()[:16]


def _decode_all(
    folder: Path, rows: Sequence[Row], rate: int
) -> tuple[Int16[np.ndarray, " P"], list[dict[str, Any]]]:
    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        decoded = list(threads.map(lambda row: _decode(folder / row["path"], rate), rows))
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
    """The samples without leading and trailing silence as 16-bit integers, their level and steadiness."""
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


def frame_levels_db(
    samples: Float32[np.ndarray, " T"], frame: int
) -> Float32[np.ndarray, " F"]:
    """The level of every `frame` samples in dB of full scale, the last frame filled up with zeros."""
    padded = np.pad(samples, (0, -len(samples) % frame)).reshape(-1, frame)
    power = np.einsum("ft,ft->f", padded, padded) / frame
    return (10 * np.log10(power + 1e-12)).astype(np.float32)
