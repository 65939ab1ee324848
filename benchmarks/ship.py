"""Puts a trained pocket model into the package with its card: sources, stages, hashes, scores.

python benchmarks/ship.py runs/pocket_lamb_more/best --data ../shared/data
"""

import argparse
import csv
import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path

import torch
from dev import METRICS, caption_all, read_dev, repeats_word

import earwitness
from earwitness import Captioner, evaluate

PACKAGE = Path(earwitness.__file__).parent / "models"
STAGES = (
    "pocket_lm",
    "pocket_encoder_random",
    "pocket_encoder",
    "pocket_lamb",
    "pocket_lamb_more",
)

CARD = """# {name}

A {parameters:.1f} M-parameter LAMB captioner (arXiv 2601.04658) that runs offline on a CPU: a
convolutional audio encoder distilled from YAMNet, the Two-Stream Adapter, the Cross-Modal Aligner
(training only), the Token Guide, and a {lm:.1f} M Llama of our own. {size:.1f} MB, half precision.

## Scores

{n} AudioCaps validation recordings with five captions each, never trained on; the checkpoint was
chosen on held-out scenes, length penalty and guide strength on these recordings. Bootstrap 95 %
intervals over recordings; one training seed.

| {header} |
|{rule}|
| {values} |

Captions with a repeated content word: {repeats:.1%}. `python benchmarks/dev.py pocket-lamb`.

## Training

Rebuilt by `make pocket DATA=...`; recipes, seeds and settings are in `recipes/`.

| stage | epochs | updates | training hours | sha256 of the weights |
|---|---|---|---|---|
{stages}

Text: human captions of the AudioCaps and Clotho training splits, without those of the recordings
above. Sound: scenes mixed from {clips:,} labelled sounds of {sources} sources along these captions,
and, for the encoder, unlabelled everyday sounds. No AudioCaps or Clotho audio was used. Twelve
percent of the recordings were kept apart for validation.

## Sources and licences

Sounds by kind of licence: {kinds}. Sounds that allow no derivatives were left out. Because some
sources are for research or non-commercial use only, **these weights are for research and other
non-commercial use**; the code around them is Apache-2.0. Captions: AudioCaps and Clotho (academic
use). Teacher: YAMNet (Apache-2.0), whose weights are not part of this model.

Sources: {names}.

## Limits

It knows about 145 kinds of sound and names the nearest one it knows for anything else. It was
trained on mixes, not on field recordings: quiet, distant and dense scenes are harder for it than
for models trained on AudioCaps audio. It says nothing about words that are spoken, music beyond
"music plays", or who is heard. Details (counts, loudness, order) are often missing. English only.
Not for decisions about people or safety.
"""


def main() -> None:
    """Copies the model, then writes metrics.json, README.md and the card of earwitness.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--name", default="pocket-lamb")
    args = parser.parse_args()
    target = PACKAGE / args.name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(args.model, target)
    captioner = Captioner.load(target)
    files, references = read_dev(args.data / "dev")
    captions, _ = caption_all(str(target), files, False, [])
    scores = evaluate(captions, references)
    metrics = {
        name: {"value": s.value, "low": s.low, "high": s.high}
        for name, s in scores.corpus.items()
        if name in METRICS
    }
    (target / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file()) / 1e6
    facts = {
        "name": args.name,
        "parameters": parameters(captioner),
        "lm": parameters(captioner.decoder),
        "size": size,
        "n": len(files),
        "header": " | ".join(metrics),
        "rule": "|".join("---" for _ in metrics),
        "values": " | ".join(
            f"{m['value']:.3f} [{m['low']:.3f}, {m['high']:.3f}]" for m in metrics.values()
        ),
        "repeats": sum(map(repeats_word, captions)) / len(captions),
        "stages": "\n".join(stage_row(stage) for stage in STAGES),
        **sources(args.data),
    }
    (target / "README.md").write_text(CARD.format(**facts), encoding="utf-8")
    settings = json.loads((target / "earwitness.json").read_text(encoding="utf-8"))
    settings["card"] = {
        "summary": f"LAMB, {facts['parameters']:.1f} M parameters, CIDEr-D "
        f"{metrics['cider_d']['value']:.2f} on {len(files)} AudioCaps validation clips",
        "licence": "research and non-commercial use; see README.md",
        "metrics": metrics,
    }
    (target / "earwitness.json").write_text(json.dumps(settings, indent=2) + "\n")
    print(f"{target}: {size:.1f} MB")
    print(json.dumps(metrics, indent=2))


def parameters(module: torch.nn.Module) -> float:
    """Weights in millions."""
    return sum(p.numel() for p in module.parameters()) / 1e6


def stage_row(stage: str) -> str:
    """What a stage's run folder tells: epochs, weight updates, hours, hash of its best weights."""
    folder = Path("runs") / stage
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    epochs = max((row["epoch"] for row in rows if "epoch" in row), default=0)
    gaps = [b["time"] - a["time"] for a, b in zip(rows, rows[1:], strict=False)]
    hours = sum(gap for gap in gaps if 0 < gap < 300) / 3600
    weights = sorted((folder / "best").rglob("*.safetensors"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in weights)).hexdigest()[:16]
    return f"| `{stage}` | {epochs} | {rows[-1]['step']:,} | {hours:.2f} | {digest} |"


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
