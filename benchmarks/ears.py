"""Whether captions name single everyday sounds: 270 recordings from Debian packages, by kind.

    python benchmarks/ears.py --fetch ~/ears                # apt-get download and unpack, once
    python benchmarks/ears.py --sounds ~/ears pocket-lamb pocket-lamb+4 pocket-link

No model was trained on these sounds. `ears.csv` lists package, path and kind, `ears_words.toml` the
words that name a kind; a caption is right if it has one of them. Of sounds beyond 10 s the
loudest 10 s are heard. Kinds come from file names, checked against another network's classes.
`--picture` draws what is mistaken for what, `--wrong` lists the captions that are wrong.
"""

import argparse
import csv
import json
import re
import subprocess
import tomllib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from dev import caption_waveforms
from jaxtyping import Bool, Float32

from earwitness import audio

HERE = Path(__file__).resolve().parent
RATE = 16000
SECONDS = 10.0
RESAMPLES = 1000


class Sound(NamedTuple):
    """A row of ears.csv."""

    package: str
    path: str
    kind: str


class Heard(NamedTuple):
    """What a model says of all sounds, which captions are right, and its score of each."""

    captions: list[str]
    right: Bool[np.ndarray, " N"]
    scores: Float32[np.ndarray, " N"]


def main() -> None:
    """Reads the command line; fetches the sounds, or prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("models", nargs="*", help="as benchmarks/dev.py names them")
    parser.add_argument("--fetch", type=Path, help="download and unpack the packages there")
    parser.add_argument("--sounds", type=Path, default=Path("ears"))
    parser.add_argument("--picture", type=Path, help="SVG of the first model's confusions")
    parser.add_argument("--wrong", type=Path, help="Markdown file of the first model's mistakes")
    parser.add_argument("--json", type=Path, help="file for the shares, as docs/figures/ears.json")
    args = parser.parse_args()
    sounds, words = read_sounds(), read_words()
    if args.fetch:
        fetch(sorted({sound.package for sound in sounds}), args.fetch)
        return
    clips = [loudest(audio.load(args.sounds / s.package / s.path, RATE)) for s in sounds]
    heard = {model: listen(model, clips, sounds, words) for model in args.models}
    print(f"{len(sounds)} sounds of {len(words)} kinds\n")
    print("| model | right | per kind | AUROC of the score |")
    print("|---|---|---|---|")
    for model, found in heard.items():
        print(row(model, found, sounds))
    if args.json:
        shares = {
            model: [float(one.right.mean()), *interval(one.right)] for model, one in heard.items()
        }
        found = {"sounds": len(sounds), "kinds": len(words), "right": shares}
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    first = next(iter(heard.values()))
    if args.picture:
        draw(first.captions, sounds, words, args.picture)
    if args.wrong:
        args.wrong.write_text(mistakes(first, sounds), encoding="utf-8")


def read_sounds() -> list[Sound]:
    """The list of sounds."""
    with (HERE / "ears.csv").open(newline="", encoding="utf-8") as file:
        return [Sound(**row) for row in csv.DictReader(file)]


def read_words() -> dict[str, re.Pattern[str]]:
    """Kind -> pattern of the words that name it."""
    tables = tomllib.loads((HERE / "ears_words.toml").read_text(encoding="utf-8"))
    return {kind: pattern(words) for kind, words in tables.items()}


def pattern(words: Sequence[str]) -> re.Pattern[str]:
    """Whole words, or beginnings of words where they end in *."""
    parts = [re.escape(word.rstrip("*")) + (r"\w*" if word.endswith("*") else "") for word in words]
    return re.compile(rf"\b(?:{'|'.join(parts)})\b")


def fetch(packages: Sequence[str], folder: Path) -> None:
    """Downloads Debian packages and unpacks each into a folder of its name."""
    folder.mkdir(parents=True, exist_ok=True)
    for package in packages:
        if (folder / package).is_dir():
            continue
        subprocess.run(["apt-get", "download", package], cwd=folder, check=True)
        archive = next(folder.glob(f"{package}_*.deb"))
        subprocess.run(["dpkg", "-x", archive.name, package], cwd=folder, check=True)
        archive.unlink()


def loudest(waveform: Float32[np.ndarray, " T"]) -> Float32[np.ndarray, " _"]:
    """The 10 s with the most energy; a shorter sound as it is."""
    size = round(SECONDS * RATE)
    if len(waveform) <= size:
        return waveform
    energy = np.concatenate([[0.0], np.cumsum(np.square(waveform, dtype=np.float64))])
    start = int(np.argmax(energy[size:] - energy[:-size]))
    return waveform[start : start + size]


def listen(
    model: str,
    clips: list[Float32[np.ndarray, " _"]],
    sounds: Sequence[Sound],
    words: dict[str, re.Pattern[str]],
) -> Heard:
    """Captions of all clips, judged."""
    found = caption_waveforms(model, clips)
    captions = [caption.text for caption in found]
    right = [bool(words[s.kind].search(c)) for s, c in zip(sounds, captions, strict=True)]
    return Heard(captions, np.array(right), np.array([c.score for c in found], np.float32))


def row(model: str, heard: Heard, sounds: Sequence[Sound]) -> str:
    """Share of captions that are right, its mean over kinds, and how well the score tells."""
    low, high = interval(heard.right)
    kinds = sorted({sound.kind for sound in sounds})
    each = [
        heard.right[[number for number, s in enumerate(sounds) if s.kind == kind]].mean()
        for kind in kinds
    ]
    share = f"{heard.right.mean():.1%} [{low:.1%}, {high:.1%}]"
    return f"| {model} | {share} | {np.mean(each):.1%} | {auroc(heard.scores, heard.right):.2f} |"


def interval(right: Bool[np.ndarray, " N"]) -> tuple[float, float]:
    """Bootstrap 95 % interval of the share over sounds."""
    rng = np.random.default_rng(0)
    draws = rng.choice(right, size=(RESAMPLES, len(right))).mean(1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def auroc(scores: Float32[np.ndarray, " N"], right: Bool[np.ndarray, " N"]) -> float:
    """Chance that a right caption has a higher score than a wrong one."""
    above = scores[right][:, None] - scores[~right][None, :]
    return float(((above > 0) + 0.5 * (above == 0)).mean())


def named(caption: str, words: dict[str, re.Pattern[str]]) -> str:
    """The kind that a caption names first; "other" where it names none."""
    places = {kind: found.start() for kind, p in words.items() if (found := p.search(caption))}
    return min(places, key=places.__getitem__) if places else "other"


def mistakes(heard: Heard, sounds: Sequence[Sound]) -> str:
    """Markdown: kinds, how many of each are right, and the captions that are wrong."""
    lines = ["| kind | right | of | wrong captions |", "|---|---|---|---|"]
    for kind in sorted({sound.kind for sound in sounds}):
        places = [number for number, sound in enumerate(sounds) if sound.kind == kind]
        wrong = Counter(heard.captions[n] for n in places if not heard.right[n])
        said = "; ".join(f"{text} ({n})" if n > 1 else text for text, n in wrong.most_common())
        lines.append(f"| {kind} | {heard.right[places].sum()} | {len(places)} | {said} |")
    return "\n".join(lines) + "\n"


def draw(
    captions: Sequence[str], sounds: Sequence[Sound], words: dict[str, re.Pattern[str]], path: Path
) -> None:
    """A matrix of kinds and the kinds named in their place, for kinds with three sounds or more."""
    import matplotlib.pyplot as plt

    counts = Counter(sound.kind for sound in sounds)
    rows = [kind for kind in sorted(counts) if counts[kind] >= 3]
    told = [
        sound.kind if words[sound.kind].search(caption) else named(caption, words)
        for sound, caption in zip(sounds, captions, strict=True)
    ]
    columns = [*rows, "other"]
    matrix = np.zeros((len(rows), len(columns)))
    for sound, kind in zip(sounds, told, strict=True):
        if sound.kind in rows:
            column = columns.index(kind if kind in rows else "other")
            matrix[rows.index(sound.kind), column] += 1 / counts[sound.kind]
    figure, axes = plt.subplots(figsize=(10, 9), layout="constrained")
    axes.imshow(matrix, cmap="magma_r", vmin=0, vmax=1)
    axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.set_xlabel("named in the caption")
    axes.set_ylabel("sound")
    figure.savefig(path)


if __name__ == "__main__":
    main()
