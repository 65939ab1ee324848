"""One sound laid out over a stretch of time: looped, repeated with pauses, counted, heard once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32

from earwitness_lab.scenes.decoding import frame_levels_db
from earwitness_lab.scenes.effects import fade
from earwitness_lab.scenes.soundbank import Clip, SoundBank

Repetition = Literal["natural", "once", "repeat", "continuous", "brief"]

_STEADY = 0.75
_CROSSFADE_SECONDS = 0.08
_BURST_DB = 18.0


@dataclass(frozen=True)
class Manner:
    """How a sound fills its time.

    natural: a steady sound fills it, others come back after pauses. once, brief: a single clip, the
    latter at most 1.5 s. repeat: several clips with short pauses. continuous: no pause. `count` is
    an exact number of separate sounds and overrules the repetition.
    """

    repetition: Repetition = "natural"
    count: int = 0


@dataclass(frozen=True)
class Track:
    """A waveform at unit active RMS, the label it was made from, and its first and last sounding
    sample.
    """

    waveform: Float32[np.ndarray, " T"]
    label: str
    first: int
    last: int


def lay(
    bank: SoundBank,
    labels: Sequence[str],
    samples: int,
    manner: Manner,
    rng: np.random.Generator,
) -> Track:
    """`samples` of a random clip of `labels`, laid out in the given manner.

    Raises:
        DataError: `bank` has no clip of `labels`.
    """
    clip = bank.pick(labels, rng)
    track = np.zeros(samples, dtype=np.float32)
    if manner.count:
        first, last = _counted(track, bank, clip, manner.count, rng)
    elif manner.repetition in ("once", "brief"):
        first, last = _single(track, bank, clip, manner.repetition == "brief", rng)
    elif manner.repetition == "continuous" or (
        manner.repetition == "natural" and _is_steady(clip, bank.rate)
    ):
        first, last = _looped(track, bank, clip, rng)
    else:
        first, last = _paused(track, bank, clip, manner.repetition == "repeat", rng)
    return Track(track, clip.label, first, last)


def _is_steady(clip: Clip, rate: int) -> bool:
    return clip.steadiness > _STEADY and len(clip) > 1.5 * rate


def excerpt(
    sound: Float32[np.ndarray, " T"], samples: int, rate: int, rng: np.random.Generator
) -> Float32[np.ndarray, " _"]:
    """At most `samples` of `sound`: the louder of two random cuts, with short fades."""
    if len(sound) <= samples:
        return fade(sound.copy(), rate // 200, rate // 50)
    starts = rng.integers(0, len(sound) - samples + 1, 2)
    cuts = [sound[start : start + samples] for start in starts]
    louder = max(cuts, key=lambda cut: float(np.dot(cut, cut)))
    return fade(louder.copy(), rate // 100, rate // 50)


def burst(sound: Float32[np.ndarray, " T"], rate: int, most: int) -> Float32[np.ndarray, " _"]:
    """The loudest single burst of `sound` (one bark, one knock), at most `most` samples.

    It reaches from the loudest frame to where 60 ms lie 18 dB below it, in both directions.
    """
    frame = rate // 50
    loud = frame_levels_db(sound, frame)
    peak = int(np.argmax(loud))
    quiet = loud < loud[peak] - _BURST_DB
    still = quiet.copy()
    still[:-2] &= quiet[1:-1] & quiet[2:]
    after = np.flatnonzero(still[peak:])
    before = np.flatnonzero(quiet[: peak + 1])
    stop = (peak + int(after[0])) * frame if len(after) else len(sound)
    start = (int(before[-1]) + 1) * frame if len(before) else 0
    start = max(start, peak * frame - most // 3)
    return fade(sound[start : min(stop + frame, start + most)].copy(), rate // 200, rate // 50)


def _put(track: Float32[np.ndarray, " T"], sound: Float32[np.ndarray, " S"], at: int) -> int:
    stop = min(len(track), at + len(sound))
    track[at:stop] += sound[: stop - at]
    return stop


def _single(
    track: Float32[np.ndarray, " T"],
    bank: SoundBank,
    clip: Clip,
    brief: bool,
    rng: np.random.Generator,
) -> tuple[int, int]:
    most = min(len(track), int(1.5 * bank.rate)) if brief else len(track)
    sound = excerpt(bank.samples(clip), most, bank.rate, rng)
    at = int(rng.integers(len(track) - len(sound) + 1))
    return at, _put(track, sound, at)


def _counted(
    track: Float32[np.ndarray, " T"],
    bank: SoundBank,
    clip: Clip,
    count: int,
    rng: np.random.Generator,
) -> tuple[int, int]:
    slot = min(len(track) // count, int(rng.uniform(0.5, 3.0) * bank.rate) + bank.rate // 4)
    single = burst(bank.samples(clip), bank.rate, max(1, int(0.75 * min(slot, 1.6 * bank.rate))))
    begin = int(rng.uniform(0, max(1, len(track) - slot * count)))
    first = last = begin
    for number in range(count):
        slack = max(1, slot - len(single))
        at = begin + number * slot + int(rng.integers(max(1, slack // 3)))
        last = _put(track, single * np.float32(rng.uniform(0.75, 1.0)), at)
        first = at if number == 0 else first
    return first, last


def _looped(
    track: Float32[np.ndarray, " T"], bank: SoundBank, clip: Clip, rng: np.random.Generator
) -> tuple[int, int]:
    cross = int(_CROSSFADE_SECONDS * bank.rate)
    at = 0
    while at < len(track):
        sound = bank.samples(clip)
        if len(sound) > len(track) - at:
            begin = int(rng.integers(len(sound) - (len(track) - at) + 1))
            sound = sound[begin:]
        edge = min(cross, len(sound) // 3)
        _put(track, fade(sound, edge if at else bank.rate // 200, edge), at)
        at += max(len(sound) - edge, bank.rate // 20)
        clip = bank.sibling(clip, rng) if rng.random() < 0.5 else clip
    fade(track, 0, bank.rate // 100)
    return 0, len(track)


def _paused(
    track: Float32[np.ndarray, " T"],
    bank: SoundBank,
    clip: Clip,
    repeat: bool,
    rng: np.random.Generator,
) -> tuple[int, int]:
    rate = bank.rate
    sound = excerpt(bank.samples(clip), len(track), rate, rng)
    free = len(track) - len(sound)
    at = first = (
        int(rng.uniform(0, 0.3 * free)) if rng.random() < 0.7 else int(rng.uniform(0, free))
    )
    last = _put(track, sound, at)
    stop_chance = 0.05 if repeat else 0.25
    while rng.random() > stop_chance:
        at = last + int(min(rng.exponential(0.3 if repeat else 0.7) + 0.05, 3.0) * rate)
        clip = bank.sibling(clip, rng) if rng.random() < 0.6 else clip
        left = len(track) - at
        if left < min(len(clip), rate // 2):
            break
        last = _put(track, excerpt(bank.samples(clip), left, rate, rng), at)
    return first, last
