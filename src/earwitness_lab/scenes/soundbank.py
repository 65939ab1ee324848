"""Labeled sounds in memory: decoded once, cached as one array, and split by recording.

A folder of sounds is a `manifest.csv` with the columns `path` and `label` and, where known,
`source`, `kind` (the license family), `origin` (where the file was cut from) or `recording` (its
name outright).
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Int16

from earwitness.errors import DataError
from earwitness_lab.scenes.decoding import decode_folder
from earwitness_lab.scenes.recordings import heldout_recordings, read_manifest, recording_of

Split = Literal["train", "heldout", "all"]


@dataclass(frozen=True)
class Clip:
    """One labeled sound: samples `start` to `stop` of its bank's pool.

    level_db is the RMS of its active frames (those within 20 dB of the loudest), in dB of full
    scale; steadiness is the share of frames within 12 dB of the loudest tenth: near 1 for rain, low
    for barks.
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
        """Raises DataError if `clips` is empty. `pool_path` lets a copy in another process share
        the pool.
        """
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

        With `cache` (a folder, made if missing) the decoded sounds are written there once and
        mapped into memory afterwards, shared by every process that loads them. The sides do not
        depend on `exclude_kinds`.

        Raises:
            DataError: no manifest, a column or file that is missing or unreadable, or nothing left.

        """
        folder = Path(folder)
        if split not in ("train", "heldout", "all"):
            raise DataError(f"split {split!r}: expected 'train', 'heldout' or 'all'")
        rows = read_manifest(folder)
        paths = [row["path"] for row in rows]
        cache = Path(cache) if cache else None
        pool, measures, pool_path = decode_folder(folder, paths, rate, cache)
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
        """The clips that `name` stands for: a label, or a "label:word" of the description."""
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
        """A random clip of one of `names` (labels, or "label:word"); those without sounds are
        skipped.

        A label, and within it a recording, is drawn by the square root of its number of clips, so
        that a recording cut into fifty pieces does not drown one that is whole.

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


def _cumulative(weights: np.ndarray) -> np.ndarray:
    total = np.cumsum(weights, dtype=np.float64)
    return total[:-1] / total[-1]
