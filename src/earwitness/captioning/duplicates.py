"""Finds the same sound under another name: the same bytes, or the same audio in another encoding.

A fingerprint holds the signs of energy differences along time and frequency, as in J. Haitsma and
T. Kalker, "A Highly Robust Audio Fingerprinting System" (ISMIR 2002), sec. 4.2; theirs has 32 bits
per 11.6 ms for finding excerpts, ours 256 bits per whole clip for finding copies. Our own choices:
the spans of time and frequency, a dead band so that quiet stretches give no random bits, and the
distance up to which two clips count as the same.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32

from earwitness import audio
from earwitness.audio import AudioSource
from earwitness.captioning.writers import Record

BITS = 256
FARTHEST = 31
"""bits in which two encodings of one sound may differ: at least one of 16 words then differs in at
most one bit
"""

_RATE = 8000
_FRAME = 512
_STEPS = 16
_LOWEST, _HIGHEST = 300.0, 3400.0
_DEAD_BAND = 0.1
_FLOOR = 1e-4
_FEWEST = 32
"""set bits that a fingerprint needs: hum and silence have too few to be told apart"""


def fingerprint(source: AudioSource) -> str | None:
    """64 hex digits; None for a sound that is too short or too uniform. Raises AudioError."""
    parts = [_bands(block) for block in audio.stream(source, _RATE, 8.192)]
    energy = np.concatenate(parts)
    if len(energy) < 2 * (_STEPS + 1):
        return None
    pooled = _over_time(len(energy)) @ energy
    log = np.log(pooled + _FLOOR * pooled.max() + 1e-20)
    bits = np.diff(np.diff(log, axis=0), axis=1) > _DEAD_BAND
    return np.packbits(bits).tobytes().hex() if bits.sum() >= _FEWEST else None


def _over_time(frames: int) -> Float32[np.ndarray, "S F"]:
    """Weights of overlapping stretches: an encoder's delay of a few frames matters little."""
    centers = (np.arange(_STEPS + 1) + 0.5) / (_STEPS + 1)
    apart = np.abs((np.arange(frames) + 0.5) / frames - centers[:, None])
    weights = np.clip(1 - apart * (_STEPS + 1), 0, None)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _bands(samples: Float32[np.ndarray, " T"]) -> Float32[np.ndarray, "F M"]:
    """Energy of the frames of a block in 17 bands, evenly spaced in log frequency."""
    frames = samples[: len(samples) // _FRAME * _FRAME].reshape(-1, _FRAME)
    spectrum = np.abs(np.fft.rfft(frames * np.hanning(_FRAME), axis=1)) ** 2
    edges = np.geomspace(_LOWEST, _HIGHEST, _STEPS + 2) * _FRAME / _RATE
    return np.add.reduceat(spectrum, edges.round().astype(int), axis=1)[:, :-1].astype(np.float32)


@dataclass
class Duplicates:
    """Remembers the sounds of a job and finds, for each new one, an earlier one that is the same.

    Only fingerprints that share one of 16 words, up to one bit, are compared; all pairs within
    `FARTHEST` bits do. Which of two sounds is the first depends on the order of the job.
    """

    _by_content: dict[str, str] = field(default_factory=dict[str, str])
    _by_word: dict[tuple[int, int], list[int]] = field(
        default_factory=dict[tuple[int, int], list[int]]
    )
    _known: list[tuple[int, float, str]] = field(default_factory=list[tuple[int, float, str]])

    def mark(self, record: Record) -> Record:
        """The record, with `duplicate_of` and `similarity` (1: the same bytes, or all bits)."""
        found = self._same(record)
        if found is None:
            self.remember(record)
            return record
        name, similarity = found
        return record | {"duplicate_of": name, "similarity": round(similarity, 4)}

    def remember(self, record: Record) -> None:
        """Records a sound as the first of its kind, unless it is marked as a duplicate."""
        if "duplicate_of" in record:
            return
        if "sha256" in record:
            self._by_content.setdefault(record["sha256"], record["file"])
        if "fingerprint" in record:
            for word in _words(record["fingerprint"]):
                self._by_word.setdefault(word, []).append(len(self._known))
            code = int(record["fingerprint"], 16)
            self._known.append((code, record["seconds"], record["file"]))

    def _same(self, record: Record) -> tuple[str, float] | None:
        same = self._by_content.get(record.get("sha256", ""))
        if same is not None:
            return same, 1.0
        if "fingerprint" not in record:
            return None
        code, seconds = int(record["fingerprint"], 16), record["seconds"]
        near = {i for word in _near(record["fingerprint"]) for i in self._by_word.get(word, ())}
        best: tuple[int, str] | None = None
        for other, its_seconds, name in (self._known[i] for i in sorted(near)):
            if abs(seconds - its_seconds) > max(0.1, 0.02 * seconds):
                continue
            distance = (code ^ other).bit_count()
            if distance <= FARTHEST and (best is None or distance < best[0]):
                best = distance, name
        return None if best is None else (best[1], 1 - best[0] / BITS)


def _words(digits: str) -> list[tuple[int, int]]:
    return [(i, int(digits[4 * i : 4 * i + 4], 16)) for i in range(BITS // 16)]


def _near(digits: str) -> list[tuple[int, int]]:
    """The words, and all words that differ from one of them in one bit."""
    flips = (0, *(1 << bit for bit in range(16)))
    return [(i, word ^ flip) for i, word in _words(digits) for flip in flips]
