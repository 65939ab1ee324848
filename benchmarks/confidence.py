"""Finds the `min_score` of a model: how confident it is on recordings, and on sounds without
content.

    python benchmarks/confidence.py pocket-lamb --data ../shared/data --out docs/images

The recordings are the development set with its human captions. The noise is made here: white and
pink noise, noise with the long-term spectrum of speech, and silence with the hiss of a recorder,
each at several levels. The score is the caption's own, as `earwitness caption` reports it.

Prints the highest threshold that keeps 95 % of the recordings (`--keep`), with its bootstrap
interval, the share of noise that it gates, and how well the score separates right captions from
wrong ones. Writes `confidence.json` and three figures. With `--store` the threshold goes into the
card of the model folder as `min_score`, which the command line, the service and the page then use.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from earwitness import Captioner, evaluate
from earwitness.gap.plots import save_figures, training_curve_figure
from earwitness.models.names import model_folder
from earwitness.models.weights import read_json, write_json
from earwitness.text import REPEATABLE_WORDS, normalize
from earwitness_lab.pocket.development import read_recordings

RATE, SECONDS = 16000, 10.0
LEVELS_DB = (-15.0, -30.0, -45.0)
SILENCE_LEVELS_DB = (-70.0, -80.0, -90.0)
RESAMPLES = 2000

SPEECH_HERTZ = (63, 125, 250, 500, 1000, 2000, 4000, 8000)
SPEECH_DB = (39.0, 58.0, 60.0, 62.0, 54.0, 49.0, 46.0, 44.0)
"""levels in bands of a third of an octave, roughly as in Byrne et al. (1994), both sexes"""


def main() -> None:
    """Reads the command line, captions everything, prints and writes what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model", help="a pocket model or a model folder")
    default = os.environ.get("EARWITNESS_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--keep", type=float, default=0.95, help="share of recordings kept")
    parser.add_argument("--noises", type=int, default=8, help="clips of each kind and level")
    parser.add_argument("--out", type=Path, default=Path("runs/confidence"))
    parser.add_argument("--store", action="store_true", help="write min_score into the card")
    args = parser.parse_args()
    captioner = Captioner.load(args.model)
    files, references = read_recordings(args.data / "dev")
    captions = captioner.caption_batch([str(file) for file in files])
    scores = np.array([caption.score for caption in captions])
    texts = [caption.text for caption in captions]
    per_clip = evaluate(texts, references, metrics=["cider_d"], resamples=0).per_clip
    quality = np.array([clip["cider_d"] for clip in per_clip])
    right = np.array([is_right(t, many) for t, many in zip(texts, references, strict=True)])
    noise = {
        kind: np.array([caption.score for caption in captioner.caption_batch(clips)])
        for kind, clips in noises(args.noises).items()
    }
    found = facts(scores, quality, right, noise, args.keep)
    report(found, len(files))
    args.out.mkdir(parents=True, exist_ok=True)
    write_json(args.out / "confidence.json", {"model": captioner.name, **found})
    for path in save_figures(figures(scores, quality, right, noise), args.out):
        print(path)
    if args.store:
        store(model_folder(args.model), found["min_score"])


def facts(
    scores: np.ndarray,
    quality: np.ndarray,
    right: np.ndarray,
    noise: dict[str, np.ndarray],
    keep: float,
) -> dict[str, Any]:
    """Every number that is printed."""
    least = threshold(scores, keep)
    rng = np.random.default_rng(0)
    drawn = [
        threshold(scores[rng.integers(len(scores), size=len(scores))], keep)
        for _ in range(RESAMPLES)
    ]
    every = np.concatenate([*noise.values()])
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {
        "min_score": least,
        "interval": [round(float(low), 3), round(float(high), 3)],
        "kept": float((scores >= least).mean()),
        "gated": {kind: float((values < least).mean()) for kind, values in noise.items()},
        "gated_all": float((every < least).mean()),
        "auroc_recording_over_noise": auroc(scores, every),
        "auroc_right_over_wrong": auroc(scores[right], scores[~right]),
        "rank_correlation_with_cider_d": rank_correlation(scores, quality),
        "right": float(right.mean()),
        "right_of_the_surest_half": float(right[np.argsort(-scores)][: len(scores) // 2].mean()),
        "area_under_risk_coverage": float(risks(scores, right).mean()),
    }


def threshold(scores: np.ndarray, keep: float) -> float:
    """The highest threshold, in thousandths, that at least the share `keep` of `scores` reaches."""
    needed = int(np.ceil(keep * len(scores) - 1e-9))
    return float(np.floor(1000 * np.sort(scores)[::-1][needed - 1]) / 1000)


def risks(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The share of wrong captions among the 1, 2, ... surest ones."""
    wrong = ~right[np.argsort(-scores, kind="stable")]
    return np.cumsum(wrong) / np.arange(1, len(wrong) + 1)


def auroc(higher: np.ndarray, lower: np.ndarray) -> float | None:
    """The chance that one of `higher` is above one of `lower`; ties count half."""
    if not len(higher) or not len(lower):
        return None
    above = (higher[:, None] > lower).mean() + 0.5 * (higher[:, None] == lower).mean()
    return float(above)


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rho; ties share their mean rank."""
    return float(np.corrcoef(_ranks(x), _ranks(y))[0, 1])


def _ranks(x: np.ndarray) -> np.ndarray:
    return (x[:, None] > x).sum(1) + ((x[:, None] == x).sum(1) - 1) / 2


def is_right(caption: str, references: list[str]) -> bool:
    """Whether at least half of the caption's content words occur in some human caption."""
    said = content_words(caption)
    known = set().union(*map(content_words, references))
    return bool(said) and 2 * len(said & known) >= len(said)


def content_words(caption: str) -> set[str]:
    """The content words, without endings of number and tense."""
    words = [w for w in normalize(caption).split() if len(w) > 2 and w not in REPEATABLE_WORDS]
    return {w.removesuffix("ing").removesuffix("s").removesuffix("e") for w in words}


def noises(count: int) -> dict[str, list[tuple[np.ndarray, int]]]:
    """Sounds without content by kind: `count` clips at each level."""
    rng = np.random.default_rng(0)
    kinds = {"white": LEVELS_DB, "pink": LEVELS_DB, "speech-shaped": LEVELS_DB}
    kinds["silence"] = SILENCE_LEVELS_DB
    return {
        kind: [(noise(kind, level, rng), RATE) for level in levels for _ in range(count)]
        for kind, levels in kinds.items()
    }


def noise(kind: str, level_db: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise of the kind's spectrum; `level_db` is its RMS in dBFS."""
    count = round(RATE * SECONDS)
    spectrum = np.fft.rfft(rng.standard_normal(count))
    hertz = np.maximum(np.fft.rfftfreq(count, 1 / RATE), 20.0)
    if kind == "pink":
        spectrum /= np.sqrt(hertz)
    elif kind == "speech-shaped":
        # Bands of a third of an octave widen with frequency: their level falls by 10 log10 f.
        density = np.interp(np.log(hertz), np.log(SPEECH_HERTZ), SPEECH_DB) - 10 * np.log10(hertz)
        spectrum *= 10 ** (density / 20)
    samples = np.fft.irfft(spectrum, count)
    samples *= 10 ** (level_db / 20) / np.sqrt(np.mean(samples**2))
    return np.clip(samples, -1, 1).astype(np.float32)


def figures(
    scores: np.ndarray, quality: np.ndarray, right: np.ndarray, noise: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Quality against score, risk against coverage, and what passes against the threshold."""
    scatter = training_curve_figure(scores, quality, quantity="CIDEr-D of the caption")
    line = scatter.axes[0].lines[0]
    line.set_linestyle("none")
    line.set_markevery(1)
    scatter.axes[0].set_xlabel("score")
    covered = np.arange(1, len(scores) + 1) / len(scores)
    curve = training_curve_figure(covered, risks(scores, right), quantity="share of wrong captions")
    curve.axes[0].set_xlabel("share of recordings that get a caption, surest first")
    curve.axes[0].set_ylim(0, 1)
    steps = np.linspace(0, 1, 201)
    passing = {
        name: np.array([(values >= step).mean() for step in steps])
        for name, values in {"recordings": scores, **noise}.items()
    }
    gates = training_curve_figure(steps, passing, quantity="share that gets a caption")
    gates.axes[0].set_xlabel("min_score")
    return {"confidence": scatter, "risk_coverage": curve, "gate": gates}


def report(found: dict[str, Any], count: int) -> None:
    """Prints a table of the numbers and the one to store."""
    print(f"{count} recordings\n\n| quantity | value |\n|---|---|")
    for name, value in found.items():
        if isinstance(value, dict):
            for kind, share in value.items():
                print(f"| {name}: {kind} | {share:.3f} |")
        elif isinstance(value, list):
            print(f"| {name} of min_score | {value[0]:.3f} to {value[1]:.3f} |")
        else:
            print(f"| {name} | {'-' if value is None else f'{value:.3f}'} |")
    print(f"\nto store in the card: {json.dumps({'min_score': found['min_score']})}")


def store(folder: Path, value: float) -> None:
    """Writes `min_score` into the card of the model in `folder`."""
    settings = read_json(folder / "earwitness.json")
    settings["card"] = {**settings.get("card", {}), "min_score": value}
    write_json(folder / "earwitness.json", settings)
    print(f"{folder / 'earwitness.json'}: min_score {value}")


if __name__ == "__main__":
    main()
