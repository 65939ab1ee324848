"""How exact the borders of sound events are, on held-out scenes whose events are known.

    python benchmarks/onsets.py pocket-lamb --data ../shared/data

A scene mixes recordings not used in any training to match a human caption. An event of a scene is
found if the model reports its class while it sounds; its onset is right within 0.5 s. Printed for
several thresholds: the share of events that are found, of those the share with a right onset and a
right end, the share of all events with a right onset, whatever class is reported there, and how
many reported events are of no class in the scene at that time.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from earwitness.captioning.captioner import sound_classes
from earwitness.models.sound_classes import SoundClassifier, SoundEvent
from earwitness_lab.pocket.scene_pool import Scenes
from earwitness_lab.scenes.mixing import SceneEvent

SEED = 77
LEAST_S = 0.3
"""an event that sounds for less is left out"""


class Found(NamedTuple):
    """What became of one event of a scene: distances in seconds, infinite if it is not reported."""

    start_s: float
    onset: float
    end: float
    any_onset: float


def main() -> None:
    """Reads the command line and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model", help="a model with a class head")
    default = os.environ.get("EARWITNESS_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"))
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--within", type=float, default=0.5, help="seconds")
    parser.add_argument("--thresholds", nargs="+", type=float, default=[0.1, 0.2, 0.3, 0.5, 0.7])
    args = parser.parse_args()
    classes = sound_classes(args.model)
    scenes = Scenes(args.data, args.cache, SEED, "captions", "heldout", "val", rarity=0.0)
    make = scenes.open()
    made = [make(index)[:2] for index in range(args.scenes)]
    frames = [classes.frames([waveform])[0] for waveform, _ in made]
    wanted = [told_apart(scene.events) for _, scene in made]
    known = sum(event.label in classes.config.labels for events in wanted for event in events)
    print(f"{args.scenes} scenes, {sum(map(len, wanted))} events, {known} of known classes\n")
    print("| threshold | found | onset of found | end of found | onset, any class | not there |")
    print("|---|---|---|---|---|---|")
    for threshold in args.thresholds:
        print(row(classes, frames, wanted, threshold, args.within))


def told_apart(events: Sequence[SceneEvent]) -> list[SceneEvent]:
    """The events long enough to be heard, those of one class that touch as one."""
    found: list[SceneEvent] = []
    for event in sorted(events, key=lambda one: (one.label, one.start_s)):
        last = found[-1] if found else None
        if last and last.label == event.label and event.start_s <= last.end_s + LEAST_S:
            end = max(last.end_s, event.end_s)
            found[-1] = SceneEvent(event.label, last.start_s, end, last.level_db)
        else:
            found.append(event)
    return [event for event in found if event.end_s - event.start_s >= LEAST_S]


def row(
    classes: SoundClassifier,
    frames: Sequence[np.ndarray],
    wanted: Sequence[Sequence[SceneEvent]],
    threshold: float,
    within: float,
) -> str:
    """One line of the table."""
    found: list[Found] = []
    stray, told_count = 0, 0
    for h, events in zip(frames, wanted, strict=True):
        told = classes.events_of(h, threshold)
        found += [of_event(event, told) for event in events]
        told_count += len(told)
        stray += sum(not any(same(event, one) for event in events) for one in told)
    heard = [one for one in found if np.isfinite(one.onset)]
    onsets = np.mean([one.onset <= within for one in heard]) if heard else 0.0
    ends = np.mean([one.end <= within for one in heard]) if heard else 0.0
    anyone = np.mean([one.any_onset <= within for one in found])
    share = f"{len(heard) / len(found):.1%}"
    strays = f"{stray / max(told_count, 1):.1%} of {told_count}"
    return f"| {threshold:g} | {share} | {onsets:.1%} | {ends:.1%} | {anyone:.1%} | {strays} |"


def of_event(event: SceneEvent, told: Sequence[SoundEvent]) -> Found:
    """How far the reported events of its class are from the borders of an event."""
    own = [one for one in told if same(event, one)]
    onset = min((abs(one.start_s - event.start_s) for one in own), default=np.inf)
    end = min((abs(one.end_s - event.end_s) for one in own), default=np.inf)
    anyone = min((abs(one.start_s - event.start_s) for one in told), default=np.inf)
    return Found(event.start_s, onset, end, anyone)


def same(event: SceneEvent, told: SoundEvent) -> bool:
    """Whether an event of that class is reported while it sounds."""
    return event.label == told.label and told.start_s < event.end_s and told.end_s > event.start_s


if __name__ == "__main__":
    main()
