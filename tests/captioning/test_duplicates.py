"""Marks of the same sound under another name."""

import io

import numpy as np
import pytest
import soundfile
import soxr

from earwitness.captioning.duplicates import BITS, FARTHEST, Duplicates, fingerprint

RATE = 16_000


def sound(seed: int, seconds: float = 4.0) -> np.ndarray:
    """Noise whose level and color change several times a second."""
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(round(4 * seconds)):
        spectrum = np.fft.rfft(rng.standard_normal(RATE // 4)) * rng.gamma(0.5, size=2001)
        parts.append(rng.uniform(0.1, 1.0) * np.fft.irfft(spectrum))
    samples = np.concatenate(parts)
    return (0.5 * samples / np.abs(samples).max()).astype(np.float32)


def encoded(samples: np.ndarray, kind: str, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind)
    return file.getvalue()


def distance(left: str, right: str) -> int:
    return (int(left, 16) ^ int(right, 16)).bit_count()


@pytest.mark.parametrize(
    "other",
    [
        lambda samples: encoded(samples, "FLAC"),
        lambda samples: encoded(samples, "MP3"),
        lambda samples: encoded(samples, "OGG"),
        lambda samples: encoded(0.3 * samples, "WAV"),
        lambda samples: encoded(soxr.resample(samples, RATE, RATE // 2), "WAV", RATE // 2),
    ],
    ids=["flac", "mp3", "ogg", "quieter", "half the rate"],
)
def test_fingerprint_is_the_same_for_another_encoding(other):
    for seed in range(3):
        samples = sound(seed)
        first = fingerprint(encoded(samples, "WAV"))
        second = fingerprint(other(samples))
        assert first is not None
        assert second is not None
        assert distance(first, second) <= FARTHEST


def test_fingerprints_of_different_sounds_are_far_apart():
    prints = [fingerprint((sound(seed), RATE)) for seed in range(30)]
    nearest = min(distance(a, b) for i, a in enumerate(prints) for b in prints[:i])
    assert nearest > 2 * FARTHEST


@pytest.mark.parametrize("samples", [np.zeros(RATE), np.sin(np.arange(4 * RATE) / 9), np.ones(99)])
def test_even_and_short_sounds_have_no_fingerprint(samples):
    assert fingerprint((samples.astype(np.float32), RATE)) is None


def test_every_pair_within_the_distance_is_found_as_by_comparing_all():
    rng = np.random.default_rng(0)
    codes = [int.from_bytes(rng.bytes(BITS // 8), "big") for _ in range(20)]
    for code in codes[:20]:
        flips = rng.choice(BITS, int(rng.integers(0, 2 * FARTHEST)), replace=False)
        codes.append(code ^ sum(1 << int(bit) for bit in flips))
    marks = Duplicates()
    for number, code in enumerate(codes):
        record = {"file": str(number), "seconds": 1.0, "fingerprint": f"{code:064x}"}
        near = [n for n in range(20) if (codes[n] ^ code).bit_count() <= FARTHEST and n < number]
        assert marks.mark(record).get("duplicate_of") == (str(near[0]) if near else None)


def test_same_bytes_and_same_sound_are_marked_and_other_lengths_are_not():
    first = {"file": "a", "seconds": 4.0, "sha256": "1", "fingerprint": "0f" * 32}
    marks = Duplicates()
    assert marks.mark(first) == first
    copy = marks.mark(first | {"file": "b"})
    assert (copy["duplicate_of"], copy["similarity"]) == ("a", 1.0)
    other = first | {"file": "c", "sha256": "2", "fingerprint": "0e" + "0f" * 31}
    assert marks.mark(other)["similarity"] == round(1 - 1 / BITS, 4)
    assert "duplicate_of" not in marks.mark(other | {"file": "d", "seconds": 8.0})


def test_duplicates_of_earlier_runs_are_known():
    marks = Duplicates()
    marks.remember({"file": "a", "seconds": 1.0, "sha256": "1"})
    marks.remember({"file": "b", "seconds": 1.0, "sha256": "2", "duplicate_of": "a"})
    assert marks.mark({"file": "c", "seconds": 1.0, "sha256": "1"})["duplicate_of"] == "a"
    assert "duplicate_of" not in marks.mark({"file": "d", "seconds": 1.0, "sha256": "2"})
