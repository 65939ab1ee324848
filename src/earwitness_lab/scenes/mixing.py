"""Training scenes: labeled clips mixed by the plan of a human caption, or at random.

The captions of AudioCaps-like data say which sounds happen and in which order; a scene realizes
one with real sounds, in a new mix each time, so that real sentences get any number of recordings.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

from earwitness.errors import DataError
from earwitness_lab.scenes import effects
from earwitness_lab.scenes.lexicon import Lexicon, Plan, PlannedEvent
from earwitness_lab.scenes.soundbank import SoundBank
from earwitness_lab.scenes.tracks import Manner, Track, lay

_FAR_DB = (-16.0, -9.0)
_NEAR_DB = (-4.0, 4.0)
_VOICES = ("speech", "man_speaking", "woman_speaking", "child_speaking")
_WEIGHT_BOUND = 5.0
# Times (None: a random middle) and nearness of each path.
_PATHS: dict[str, tuple[list[float | None], list[float]]] = {
    "approach": ([0.0, 0.85, 1.0], [0.0, 1.0, 1.0]),
    "recede": ([0.0, 0.15, 1.0], [1.0, 1.0, 0.0]),
    "pass": ([0.0, None, 1.0], [0.0, 1.0, 0.0]),
}


@dataclass(frozen=True)
class SceneEvent:
    """A sound within a scene: its label, when it is heard (seconds), and its level in dB.

    Levels are relative to one another: 0 is a foreground sound at its ordinary loudness.
    """

    label: str
    start_s: float
    end_s: float
    level_db: float


@dataclass(frozen=True)
class Scene:
    """A mixed waveform (float32, within -1 to 1), the caption that it realizes, its events."""

    waveform: Float32[np.ndarray, " T"]
    caption: str
    events: tuple[SceneEvent, ...]


@dataclass(frozen=True)
class Placed:
    """A sound to render: candidate labels, samples `start` to `stop`, level, distance, manner."""

    labels: tuple[str, ...]
    start: int
    stop: int
    level_db: float
    far: bool = False
    movement: str = ""
    manner: Manner = Manner()
    speed: float = 1.0


class SceneSet:
    """Captions that a bank of sounds can play, each with a new mix at every visit.

    Captions that the lexicon does not understand, or whose sounds are not in `bank`, are left out;
    `indices` holds the places of those that stay.
    """

    def __init__(
        self,
        captions: Sequence[str],
        lexicon: Lexicon,
        bank: SoundBank,
        seed: int = 0,
        seconds: float = 10.0,
    ) -> None:
        """Raises DataError if none of `captions` can be mixed."""
        self.bank, self.seed, self.seconds = bank, seed, seconds
        plans: dict[int, Plan] = {}
        for index, caption in enumerate(captions):
            plan = lexicon.parse(caption)
            told = plan and plan.told_by(lambda name: bank.count(name) > 0)
            if told:
                plans[index] = told
        if not plans:
            raise DataError(
                f"none of {len(captions)} captions can be mixed from {len(bank.labels)} labels"
            )
        self.indices = tuple(plans)
        self.plans = tuple(plans.values())
        self.captions = tuple(captions[index] for index in plans)

    def __len__(self) -> int:
        return len(self.plans)

    def scene(self, index: int, visit: int = 0) -> Scene:
        """The scene of caption `index` at its `visit`; fixed by seed, index and visit."""
        rng = np.random.default_rng([self.seed, index, visit])
        return compose(self.plans[index], self.bank, rng, self.seconds, self.captions[index])

    def weights(self) -> Float64[np.ndarray, " N"]:
        """A sampling weight per caption, mean 1: the inverse square root of its rarest label's
        frequency.

        Bounded to a fifth and five times the median, so that a label with three clips is not all
        that is heard.
        """
        labels = [
            {part.partition(":")[0] for event in plan.events for part in event.candidates[0]}
            for plan in self.plans
        ]
        frequency = Counter(label for names in labels for label in names)
        weights = np.array([min(frequency[label] for label in names) ** -0.5 for names in labels])
        middle = float(np.median(weights))
        weights = weights.clip(middle / _WEIGHT_BOUND, middle * _WEIGHT_BOUND)
        return weights / weights.mean()


def compose(
    plan: Plan,
    bank: SoundBank,
    rng: np.random.Generator,
    seconds: float = 10.0,
    caption: str = "",
) -> Scene:
    """A scene of `plan` with sounds of `bank`: its groups one after the other.

    Cuts between groups are random; a far sound that begins the scene may go on to its end. Only
    what the plan names is heard, over a noise floor.

    Raises:
        DataError: an event of `plan` has no candidate with sounds in `bank`.

    """
    samples = round(seconds * bank.rate)
    told = plan.told_by(lambda name: bank.count(name) > 0)
    if told is None:
        raise DataError(f"caption {caption!r}: some of its sounds are not in this bank")
    shares = np.array([rng.uniform(0.6, 1.6) * _length(group) for group in told.groups])
    cuts = np.concatenate([[0], np.cumsum(shares / shares.sum())]) * samples
    placed: list[Placed] = []
    for number, group in enumerate(told.groups):
        start, stop = int(cuts[number]), int(cuts[number + 1])
        for event in group:
            goes_on = event.far and number == 0 and rng.random() < 0.4
            placed += _place(event, start, samples if goes_on else stop, rng)
    return render(placed, bank, rng, samples, caption)


def _length(group: tuple[PlannedEvent, ...]) -> float:
    if all(event.repetition in ("once", "brief") for event in group):  # or none: a silence
        return 0.5
    return 1.5 if any(event.movement or event.count > 2 for event in group) else 1.0


def _place(event: PlannedEvent, start: int, stop: int, rng: np.random.Generator) -> list[Placed]:
    """`event` within its group's time: one sound per voice; voices that speak take turns."""
    labels = event.candidates[int(rng.integers(len(event.candidates)))]
    voices = labels * event.voices
    level_db = float(rng.uniform(*(_FAR_DB if event.far else _NEAR_DB))) + event.loudness_db
    manner = Manner(event.repetition, event.count)
    spans = [(label, start, stop) for label in voices]
    if len(voices) > 1 and all(map(_is_voice, voices)):
        spans = _turns(voices, start, stop, rng) if rng.random() < 0.75 else spans
    return [
        Placed(
            (label,),
            begin,
            end,
            level_db + (float(rng.uniform(-2, 2)) if len(spans) > 1 else 0.0),
            event.far,
            event.movement,
            manner,
            event.speed,
        )
        for label, begin, end in spans
    ]


def _turns(
    voices: tuple[str, ...], start: int, stop: int, rng: np.random.Generator
) -> list[tuple[str, int, int]]:
    """A random order of `voices`, each with its part of the time and a short overlap or pause."""
    order = [voices[int(number)] for number in rng.permutation(len(voices))]
    cuts = np.linspace(start, stop, len(order) + 1)
    cuts[1:-1] += rng.uniform(-0.15, 0.15, len(order) - 1) * (stop - start)
    return [(label, int(cuts[number]), int(cuts[number + 1])) for number, label in enumerate(order)]


def random_scene(
    bank: SoundBank, rng: np.random.Generator, seconds: float = 10.0, max_events: int = 4
) -> Scene:
    """One to `max_events` random sounds of `bank` with every effect, without caption.

    Labels are drawn by the square root of their number of recordings. Half of the sounds may fill
    the whole scene, the others a part of it; a quarter are far, a tenth move, and half play up to a
    third faster or slower.
    """
    samples = round(seconds * bank.rate)
    number = int(rng.integers(1, max_events + 1))
    weights = np.sqrt([len(bank.recordings(label)) for label in bank.labels])
    labels = rng.choice(bank.labels, size=number, p=weights / weights.sum())
    placed = [_random_placed(str(label), samples, rng) for label in labels]
    return render(placed, bank, rng, samples)


def _random_placed(label: str, samples: int, rng: np.random.Generator) -> Placed:
    start, stop = 0, samples
    if rng.random() < 0.5:
        start = int(rng.uniform(0, 0.6) * samples)
        stop = int(min(samples, start + rng.uniform(0.2, 0.7) * samples))
    far = bool(rng.random() < 0.25)
    movement = str(rng.choice(["approach", "recede", "pass"])) if rng.random() < 0.1 else ""
    level_db = float(rng.uniform(*(_FAR_DB if far else (-10.0, 4.0))))
    speed = float(np.exp(rng.uniform(-0.3, 0.3))) if rng.random() < 0.5 else 1.0
    return Placed((label,), start, stop, level_db, far, movement, speed=speed)


def render(
    placed: Sequence[Placed],
    bank: SoundBank,
    rng: np.random.Generator,
    samples: int,
    caption: str = "",
) -> Scene:
    """The scene of `samples` in which every one of `placed` sounds, in one place, through one
    recorder.

    Raises:
        DataError: a sound of `placed` has no label with a clip in `bank`.

    """
    dry, wet = np.zeros((2, samples), dtype=np.float32)
    room = bool(rng.random() < 0.6)
    wetness = float(rng.uniform(0.1, 0.6))
    events = []
    for sound in placed:
        track = _at_speed(bank, sound, rng)
        heard = _distant(track, sound, bank.rate, rng) * np.float32(10 ** (sound.level_db / 20))
        dry[sound.start : sound.stop] += heard
        if room:
            wet[sound.start : sound.stop] += heard * np.float32(
                wetness * (2.0 if sound.far else 1.0)
            )
        events.append(
            SceneEvent(
                track.label,
                (sound.start + track.first) / bank.rate,
                (sound.start + track.last) / bank.rate,
                sound.level_db,
            )
        )
    waveform = effects.place(dry, wet, rng, bank.rate, room, bool(rng.random() < 0.8))
    return Scene(_recorded(waveform, rng, bank.rate), caption, tuple(events))


def _at_speed(bank: SoundBank, sound: Placed, rng: np.random.Generator) -> Track:
    samples = sound.stop - sound.start
    if sound.speed == 1.0:
        return lay(bank, sound.labels, samples, sound.manner, rng)
    speed = 1 + (sound.speed - 1) / 3 if _is_voice(sound.labels[0]) else sound.speed
    track = lay(bank, sound.labels, int(samples * speed) + 2, sound.manner, rng)
    waveform = effects.varispeed(track.waveform, np.full(samples, speed, dtype=np.float32))
    first, last = (min(samples, int(sample / speed)) for sample in (track.first, track.last))
    return Track(waveform, track.label, first, last)


def _is_voice(name: str) -> bool:
    return name.partition(":")[0] in _VOICES


def _distant(
    track: Track, sound: Placed, rate: int, rng: np.random.Generator
) -> Float32[np.ndarray, " T"]:
    heard = track.waveform
    if sound.far:
        heard = effects.low_pass(heard, float(np.exp(rng.uniform(np.log(900), np.log(4500)))), rate)
    if sound.movement in _PATHS:
        middle = float(rng.uniform(0.35, 0.65))
        points = [middle if at is None else at for at in _PATHS[sound.movement][0]]
        path = effects.ramp(points, _PATHS[sound.movement][1], len(heard))
        heard = effects.approach(heard, path, rate)
    elif sound.movement:
        speed = effects.ramp(*_speeds(sound.movement, rng), len(heard))
        heard = effects.varispeed(heard, speed) * np.square(speed)
    return heard


def _speeds(change: str, rng: np.random.Generator) -> tuple[list[float], list[float]]:
    """Times (0 to 1) and speeds of an engine that revs, accelerates or decelerates."""
    fast = float(rng.uniform(1.4, 2.0))
    if change == "accelerate":
        return [0.0, 0.1, 0.9, 1.0], [1.0, 1.0, fast, fast]
    if change == "decelerate":
        return [0.0, 0.1, 0.9, 1.0], [fast, fast, 1.0, 1.0]
    times, speeds = [0.0], [1.0]
    while times[-1] < 0.9:
        start = times[-1] + float(rng.uniform(0.03, 0.2))
        times += [start, start + 0.05, start + 0.05 + float(rng.uniform(0.02, 0.1))]
        speeds += [1.0, float(rng.uniform(1.3, 2.0)), 1.0]
    return times, speeds


def _recorded(
    mixed: Float32[np.ndarray, " T"], rng: np.random.Generator, rate: int
) -> Float32[np.ndarray, " T"]:
    """`mixed` with a noise floor, at a random gain, now and then clipped or coded; peak below 1."""
    rms = float(np.sqrt(np.mean(np.square(mixed)))) + 1e-6
    floor_db = float(rng.triangular(-65, -45, -15))
    mixed = mixed + effects.noise(len(mixed), rng, rate) * np.float32(rms * 10 ** (floor_db / 20))
    mixed /= np.abs(mixed).max() + np.float32(1e-9)
    fate = rng.random()
    if fate < 0.06:
        mixed = effects.overdrive(mixed, float(rng.uniform(1.5, 6.0)))
        mixed /= np.abs(mixed).max()
    elif fate < 0.10:
        mixed = effects.mu_law(mixed)
    return mixed * np.float32(10 ** (rng.triangular(-36, -4, -0.3) / 20))
