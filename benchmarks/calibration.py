"""Whether the score of a caption is the chance that it is right, on held-out real recordings.

    python benchmarks/calibration.py pocket-lamb --data ../shared/data --ears ~/ears --store

The recordings are labeled and not used in any training. A caption is right if it has a word
for the recording's class. The logistic function of the support (`SoundClassifier.chance`) is fitted
on one half of them, by recording, and measured on the other half; with `--ears` also on the single
sounds of ears.py, which come from other sources. Captions that are
right less than one time in seven are not worth saying: that is the minimum score. `--store` writes
slope, shift and minimum score into the head's `classes.json`, `--out` draws how often captions are
right against what their score says.
"""

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import ears
import numpy as np
from jaxtyping import Bool, Float

from earwitness import Captioner, audio
from earwitness.caption import CaptionCalls
from earwitness.captioning.heard import EventReranker
from earwitness.models.json_files import read_json, write_json
from earwitness.models.names import model_folder
from earwitness.models.sound_classes import SETTINGS, SoundClassifier
from earwitness.text import normalize
from earwitness_lab.pocket.real_sound import RealSound, is_heldout, real_sounds

RATE, SECONDS, BATCH = 16000, 10.0, 8
BINS = 10
LEAST = 0.15
"""chance of being right below which a caption is not said"""
SHRINK = 1.0
"""of squared slope and shift, so that both stay finite"""

Supports = Float[np.ndarray, " N"]
Right = Bool[np.ndarray, " N"]


def main() -> None:
    """Reads the command line, captions, fits, prints, and stores if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model", help="a model with a class head")
    default = os.environ.get("EARWITNESS_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--ears", type=Path, help="folder of the single sounds")
    parser.add_argument("--recordings", type=int, default=600, help="at most")
    parser.add_argument("--out", type=Path, help="SVG of the calibration")
    parser.add_argument("--store", action="store_true", help="write into classes.json")
    args = parser.parse_args()
    captioner = Captioner.load(args.model)
    assert isinstance(captioner, CaptionCalls)
    assert captioner.classes is not None
    classes = captioner.classes
    sounds = heldout(args.data, classes, args.recordings)
    clips = [audio.load(sound.path, RATE)[: round(SECONDS * RATE)] for sound in sounds]
    texts, supports = listen(captioner, clips)
    names = dict(zip(classes.config.labels, classes.words, strict=True))
    right = np.array(
        [
            not names[s.label].isdisjoint(normalize(t).split())
            for s, t in zip(sounds, texts, strict=True)
        ]
    )
    first = np.array([is_heldout(f"calibration {s.recording}", 0.5) for s in sounds])
    calibration = fitted(classes, supports[first], right[first])
    fitted_classes = replace(
        classes, config=classes.config.model_copy(update={"calibration": calibration})
    )
    parts = {"held-out recordings": (supports[~first], right[~first])}
    if args.ears:
        parts["single sounds"] = single_sounds(captioner, args.ears)
    print(f"{len(sounds)} recordings; slope and shift {calibration[0]:.3f}, {calibration[1]:.3f}")
    print(f"minimum score {LEAST:g}\n")
    print("| recordings | n | right | AUROC | ECE of the support | ECE of the score | gated |")
    print("|---|---|---|---|---|---|---|")
    for name, (s, r) in parts.items():
        print(row(name, s, r, fitted_classes))
    if args.out:
        draw(parts, fitted_classes, args.out)
    if args.store:
        store(args.model, calibration)


def heldout(data: Path, classes: SoundClassifier, most: int) -> list[RealSound]:
    """Held-out recordings of known classes, at most `most`, one class as likely as another."""
    known = [s for s in real_sounds(data) if s.heldout and s.label in classes.config.labels]
    order = np.random.default_rng(0).permutation(len(known))[:most]
    return [known[place] for place in sorted(order)]


def listen(captioner: CaptionCalls, clips: Sequence[np.ndarray]) -> tuple[list[str], Supports]:
    """The captions chosen by the class head, and their supports."""
    assert captioner.classes is not None
    reranker = EventReranker(captioner.classes)
    found = []
    for start in range(0, len(clips), BATCH):
        found += [row[0] for row in reranker.captions(captioner, clips[start : start + BATCH])]
    return [c.text for c in found], np.array([c.rerank or 0.0 for c in found])


def single_sounds(captioner: CaptionCalls, folder: Path) -> tuple[Supports, Right]:
    """The same for the sounds of ears.py."""
    sounds, words = ears.read_sounds(), ears.read_words()
    clips = [ears.loudest(audio.load(folder / s.package / s.path, RATE)) for s in sounds]
    texts, supports = listen(captioner, clips)
    right = [bool(words[s.kind].search(t)) for s, t in zip(sounds, texts, strict=True)]
    return supports, np.array(right)


def fitted(classes: SoundClassifier, supports: Supports, right: Right) -> tuple[float, float]:
    """Slope and shift of the logit at which what happened is most probable, by Newton's method."""
    plain = replace(classes, config=classes.config.model_copy(update={"calibration": (1.0, 0.0)}))
    inside = np.array([plain.chance(s) for s in supports])
    x = np.stack([np.log(inside / (1 - inside)), np.ones(len(inside))], axis=1)
    w = np.array([1.0, 0.0])
    for _ in range(30):
        p = 1 / (1 + np.exp(-x @ w))
        slope = x.T @ (right - p) - SHRINK * w
        step = np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + SHRINK * np.eye(2), slope)
        w = w + step / max(1.0, float(np.linalg.norm(step)))
    return round(float(w[0]), 4), round(float(w[1]), 4)


def expected_error(chances: Supports, right: Right) -> float:
    """Expected calibration error over `BINS` bins of equal width."""
    place = np.minimum((chances * BINS).astype(int), BINS - 1)
    inside = [place == b for b in range(BINS) if (place == b).any()]
    return float(sum(abs(right[i].mean() - chances[i].mean()) * i.mean() for i in inside))


def row(name: str, supports: Supports, right: Right, classes: SoundClassifier) -> str:
    """One line of the table."""
    chances = np.array([classes.chance(s) for s in supports])
    before, after = expected_error(supports, right), expected_error(chances, right)
    order = ears.auroc(chances.astype(np.float32), right)
    gated = f"{(chances < LEAST).mean():.1%}"
    return (
        f"| {name} | {len(right)} | {right.mean():.1%} | {order:.2f} | {before:.3f} | "
        f"{after:.3f} | {gated} |"
    )


def draw(parts: dict[str, tuple[Supports, Right]], classes: SoundClassifier, path: Path) -> None:
    """How often captions are right against the mean score, in bins of a tenth."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 4.5), layout="constrained")
    axes.plot([0, 1], [0, 1], color="gray", linewidth=1, label="as it should be")
    for name, (supports, right) in parts.items():
        chances = np.array([classes.chance(s) for s in supports])
        place = np.minimum((chances * BINS).astype(int), BINS - 1)
        bins = [place == b for b in range(BINS) if (place == b).sum() >= 3]
        points = [(chances[i].mean(), right[i].mean()) for i in bins]
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set_xlabel("score")
    axes.set_ylabel("share of captions that are right")
    axes.legend()
    figure.savefig(path)


def store(model: str, calibration: tuple[float, float]) -> None:
    """Writes the calibration and the minimum score into the head of the model's own encoder."""
    path = model_folder(model) / "encoder" / SETTINGS
    settings = read_json(path) | {"calibration": list(calibration), "least_score": LEAST}
    write_json(path, settings)
    print(f"\n{path}")


if __name__ == "__main__":
    main()
