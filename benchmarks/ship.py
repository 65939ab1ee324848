"""Puts a trained pocket model into the package with its card: sources, stages, hashes, scores.

python benchmarks/ship.py runs/pocket_lamb/best --data ../shared/data --other runs/seed_*/best
"""

import argparse
import csv
import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path

import torch
from dev import caption_all
from dev_tables import METRICS, repeats, words
from pocket import LAMB_STAGES

import earwitness
from earwitness import Captioner, evaluate
from earwitness.models.card import CardFacts, Evaluation, Interval, Stage, facts_of, write_card
from earwitness.models.weights import read_json, write_json
from earwitness.training.stages import read_recipe
from earwitness_lab.pocket.development import read_recordings

PACKAGE = Path(earwitness.__file__).parent / "models"

DESCRIPTION = """{parameters:.1f} M parameters that run offline on a CPU: a convolutional audio
encoder distilled from YAMNet, the Two-Stream Adapter, the Cross-Modal Aligner (training only), the
Token Guide, and a {lm:.1f} M Llama of our own. {size:.1f} MB, half precision."""

SCORES = """Five captions each, never trained on; the checkpoint was chosen on held-out scenes,
epochs, length penalty and encoder on these recordings. 95 % intervals by bootstrap over recordings;
one training seed. Captions with a repeated content word: {repeats:.1%}. `{command}`."""

DATA = """Text: human captions of the AudioCaps training split, without those of the recordings that
it was measured on; the language model began with those of Clotho too. Sound: scenes mixed from
{clips:,} labeled sounds of {sources} sources to match these captions, and, for the encoder,
unlabeled everyday sounds; for the class head beside the encoder also the labeled recordings of
`more_audio`. No AudioCaps or Clotho audio was used. Twelve percent of the recordings were kept
apart for validation.

Sources: {names}."""

LICENSE = "Research and non-commercial use"

LICENSE_NOTE = """Some sources are for research or non-commercial use only, and so are these
weights; the code around them is Apache-2.0. Sounds by kind of license: {kinds}. Sounds that allow
no derivatives were left out. Captions: AudioCaps and Clotho (academic use). Teacher: YAMNet
(Apache-2.0), whose weights are not part of this model."""

LIMITS = """It knows about 145 kinds of sound and names the nearest one it knows for anything else.
It was trained on mixes, not on field recordings: quiet, distant and dense scenes are harder for it
than for models trained on AudioCaps audio. It says nothing about words that are spoken, music
beyond "music plays", or who is heard. Details (counts, loudness, order) are often missing. English
only. Not for decisions about people or safety."""

OWN_LIMITS = """Its captions are short ({words:.0f} words). Electronic beeps and alarms are often
taken for animals, telephones or whistles."""

LUCK = """
Part of its scores is luck: other seeds of the same recipe have CIDEr-D {cider_d} and
METEOR {meteor} on the same recordings."""


def main() -> None:
    """Copies the model, measures it, and writes metrics.json, its facts and README.md."""
    parser = arguments(__doc__)
    parser.add_argument("--name", default="pocket-lamb")
    parser.add_argument(
        "--other",
        nargs="+",
        type=Path,
        default=[],
        help="the same recipe with other seeds; their scores go into the card",
    )
    parser.add_argument(
        "--classes",
        type=Path,
        default=Path("runs/pocket_classes/best/encoder"),
        help="the class head that goes beside the encoder",
    )
    args = parser.parse_args()
    target = PACKAGE / args.name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(args.model, target)
    for file in sorted(args.classes.glob("classes.*")):
        shutil.copy(file, target / "encoder")
    captioner = Captioner.load(target)
    files, references = read_recordings(args.data / "dev")
    captions, _ = caption_all(str(target), files)
    metrics = measured(captions, references)
    known = {
        "parameters": parameters(captioner),
        "lm": parameters(captioner.decoder),
        "size": megabytes(target),
        "repeats": repeats(captions),
        "words": words(captions),
        "command": f"python benchmarks/dev.py {args.name}",
        **sources(args.data),
    }
    facts = CardFacts(
        summary=f"LAMB, {known['parameters']:.1f} M parameters, CIDEr-D "
        f"{metrics['cider_d'].value:.2f} on {len(files)} AudioCaps validation clips",
        license=LICENSE,
        license_note=LICENSE_NOTE.format(**known),
        description=DESCRIPTION.format(**known),
        metrics=metrics,
        evaluation=evaluation(len(files), SCORES.format(**known)),
        command="make pocket DATA=...",
        seeds=seeds(LAMB_STAGES),
        stages=tuple(stage(name) for name in LAMB_STAGES),
        data=DATA.format(**known),
        limits=f"{LIMITS}\n{OWN_LIMITS.format(**known)}{luck(args.other, files, references)}",
    )
    finish(target, facts)


def arguments(description: str) -> argparse.ArgumentParser:
    """The arguments of every script that ships a model."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    return parser


def finish(folder: Path, facts: CardFacts) -> None:
    """Writes what is known of a model to its folder: metrics.json, the card's facts, README.md."""
    settings = read_json(folder / "earwitness.json")
    settings["card"] = facts_of({}, facts)
    write_json(folder / "earwitness.json", settings)
    write_json(folder / "metrics.json", settings["card"]["metrics"])
    write_card(folder)
    print(f"{folder}: {megabytes(folder):.1f} MB")
    print(json.dumps(settings["card"]["metrics"], indent=2))


def measured(captions: list[str], references: list[list[str]]) -> dict[str, Interval]:
    """The scores of `captions` with their intervals."""
    corpus = evaluate(captions, references).corpus
    return {
        name: Interval(value=corpus[name].value, low=corpus[name].low, high=corpus[name].high)
        for name in METRICS
        if name in corpus
    }


def luck(others: list[Path], files: list[Path], references: list[list[str]]) -> str:
    """What other seeds of the recipe score; nothing where none is named."""
    metrics = ["cider_d", "meteor"]
    captions = [caption_all(str(other), files)[0] for other in others]
    found = [evaluate(c, references, metrics=metrics, resamples=0).corpus for c in captions]
    told = {name: " and ".join(f"{scores[name].value:.2f}" for scores in found) for name in metrics}
    return LUCK.format(**told) if others else ""


def evaluation(clips: int, note: str) -> Evaluation:
    """What the scores of pocket models are measured on."""
    return Evaluation(dataset="AudioCaps", split="validation", clips=clips, note=note)


def megabytes(folder: Path) -> float:
    """Size of all files below `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def parameters(module: torch.nn.Module) -> float:
    """Weights in millions."""
    return sum(p.numel() for p in module.parameters()) / 1e6


def seeds(stages: tuple[str, ...]) -> tuple[int, ...]:
    """The seeds in the recipes of `stages`, each once."""
    recipes = [read_recipe(Path("recipes") / f"{name}.toml") for name in stages]
    return tuple(sorted({recipe.fit.seed for recipe in recipes}))


def stage(name: str) -> Stage:
    """What a stage's run folder tells: epochs, weight updates, hours, hash of its best weights."""
    folder = Path("runs") / name
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    epochs = max((row["epoch"] for row in rows if "epoch" in row), default=0)
    gaps = [b["time"] - a["time"] for a, b in zip(rows, rows[1:], strict=False)]
    hours = sum(gap for gap in gaps if 0 < gap < 300) / 3600
    weights = sorted((folder / "best").rglob("*.safetensors"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in weights)).hexdigest()[:16]
    return Stage(name=name, epochs=epochs, updates=rows[-1]["step"], hours=hours, sha256=digest)


def sources(data: Path) -> dict[str, object]:
    """Counts and names of the sounds that were trained on."""
    with (data / "train_audio" / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] != "NC-ND"]
    kinds = Counter(row["kind"] for row in rows).most_common()
    names = sorted({row["source"] for row in rows})
    return {
        "clips": len(rows),
        "sources": len(names),
        "kinds": ", ".join(f"{kind} {count:,}" for kind, count in kinds),
        "names": ", ".join(names),
    }


if __name__ == "__main__":
    main()
