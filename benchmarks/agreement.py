"""Whether captions name what an independent tagger hears, on real recordings that nobody labeled.

    python benchmarks/agreement.py pocket-lamb+events pocket-lamb pocket-link --data ../shared/data

No human caption is needed: YAMNet (AudioSet's classes, taught on two million recordings) and the
class head each give probabilities of sounds, and a caption agrees with one as far as the classes
that it names are heard (their highest probability anywhere, at most 1). The recordings are those of
`distill_audio` and the unlabeled ones of `more_audio`, a fixed random choice; the encoder learned
YAMNet's answers from recordings of the same sources, captioner and class head have not met them.
Recall is the share of recordings whose likeliest sound of YAMNet's the caption names.
"""

import argparse
import csv
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from dev import caption_waveforms
from jaxtyping import Float

from earwitness import audio
from earwitness.captioning.captioner import sound_classes
from earwitness.errors import AudioError
from earwitness.models.sound_classes import SoundClassifier
from earwitness.text import normalize
from earwitness_lab.pocket.real_sound import real_sounds
from earwitness_lab.pocket.teacher import Yamnet

RATE, SECONDS = 16000, 10.0
RESAMPLES = 1000


def main() -> None:
    """Reads the command line and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("models", nargs="+", help="as benchmarks/dev.py names them")
    default = os.environ.get("EARWITNESS_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--recordings", type=int, default=1000)
    args = parser.parse_args()
    classes = sound_classes("pocket-lamb")
    files = unlabeled(args.data, args.recordings)
    clips = readable(files)
    own = np.maximum(*classes.heard(clips)[:2])
    teacher = Yamnet(args.data / "yamnet")
    theirs = np.stack([teacher(clip).scores.max(0) for clip in clips])
    theirs = of_our_classes(theirs, classes, args.data / "yamnet" / "yamnet_class_map.csv")
    print(f"{len(clips)} recordings\n")
    print("| model | heard by YAMNet | likeliest of YAMNet named | heard by the class head |")
    print("|---|---|---|---|")
    for model in args.models:
        texts = [said.text for said in caption_waveforms(model, clips)]
        named = np.stack([names(text, classes) for text in texts])
        columns = (support(named, theirs), recall(named, theirs), support(named, own))
        print(f"| {model} | " + " | ".join(map(with_interval, columns)) + " |")


def unlabeled(data: Path, count: int) -> list[Path]:
    """A fixed random choice of the recordings without a label."""
    files = sorted((data / "distill_audio").glob("*.opus"))
    files += [sound.path for sound in real_sounds(data) if not sound.label]
    order = np.random.default_rng(0).permutation(len(files))[:count]
    return [files[place] for place in sorted(order)]


def readable(files: Sequence[Path]) -> list[Float[np.ndarray, " _"]]:
    """The first 10 s of the files that can be decoded."""
    clips = []
    for file in files:
        try:
            clips.append(audio.load(file, RATE)[: round(SECONDS * RATE)])
        except AudioError as error:
            print(f"left out: {error}", file=sys.stderr)
    return clips


def of_our_classes(
    scores: Float[np.ndarray, "N 521"], classes: SoundClassifier, table: Path
) -> Float[np.ndarray, "N K"]:
    """YAMNet's scores of the AudioSet class that each of ours is called by; 0 if it has none."""
    with table.open(newline="", encoding="utf-8") as file:
        place = {row["display_name"]: int(row["index"]) for row in csv.DictReader(file)}
    empty = np.zeros(len(scores), scores.dtype)
    columns = [scores[:, place[n]] if n in place else empty for n in classes.config.names]
    return np.stack(columns, axis=1)


def names(text: str, classes: SoundClassifier) -> np.ndarray:
    """The classes that a caption names."""
    words = normalize(text).split()
    return np.array([not own.isdisjoint(words) for own in classes.words])


def support(named: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """How far what each caption names is heard, 0 to 1."""
    return np.minimum((named * probabilities).sum(1), 1.0)


def recall(named: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Whether each caption names the likeliest class."""
    likeliest = probabilities.argmax(1)
    return named[np.arange(len(named)), likeliest].astype(float)


def with_interval(values: np.ndarray) -> str:
    """The mean over recordings and its bootstrap 95 % interval."""
    rng = np.random.default_rng(0)
    draws = rng.choice(values, size=(RESAMPLES, len(values))).mean(1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    main()
