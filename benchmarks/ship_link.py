"""Puts a trained Diffusion-Link into the package beside pocket-lamb, whose encoder it shares.

    python benchmarks/ship_link.py runs/pocket_link_zeroshot/best --data ../shared/data

pocket-lamb must be there first, and with the encoder that the dual encoder was trained on.
"""

import argparse
import json
import shutil
from pathlib import Path

from dev import METRICS, caption_all, read_dev
from ship import PACKAGE, parameters, sources

from earwitness import Captioner, evaluate
from earwitness.pocket import share_part

CARD = """# pocket-link

A {parameters:.1f} M-parameter Diffusion-Link captioner (arXiv 2510.11330) that runs offline on a
CPU: a small CLAP-style dual encoder over pocket-lamb's audio encoder, the bridge, a projector to
one token, and a small Llama of our own. {size:.1f} MB in half precision beside pocket-lamb, with
which it shares the audio encoder.

Protocol: **zero-shot**, in the paper's sense. Projector and language model were trained on text
alone and never heard audio; the dual encoder and the bridge were trained on pairs of sound and
caption.

## Scores

{n} AudioCaps validation recordings with five captions each, never trained on. Bootstrap 95 %
intervals over recordings; one training seed. pocket-lamb captions better: this model is here to
try the bridge on. The comparison with other bridges is in docs/link_results.md.

| {header} |
|{rule}|
| {values} |

## Training, sources and licences

Trained on the same scenes and captions as pocket-lamb: {clips:,} labelled sounds mixed along human
captions of the AudioCaps and Clotho training splits, without those of the recordings above.
Because some sources are for research or non-commercial use only, **these weights are for research
and other non-commercial use**; the code around them is Apache-2.0.

Sounds by kind of licence: {kinds}. Sources: {names}.
"""


def main() -> None:
    """Copies the model, shares its audio encoder, writes metrics.json, README.md and the card."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    args = parser.parse_args()
    target = PACKAGE / "pocket-link"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(args.model, target)
    share_part(target, "encoder/audio", "pocket-lamb", "encoder")
    files, references = read_dev(args.data / "dev")
    captions, _ = caption_all("pocket-link", files, False, [])
    corpus = evaluate(captions, references).corpus
    metrics = {
        name: {"value": corpus[name].value, "low": corpus[name].low, "high": corpus[name].high}
        for name in METRICS
        if name in corpus
    }
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file()) / 1e6
    facts = {
        "parameters": parameters(Captioner.load("pocket-link")),
        "size": size,
        "n": len(files),
        "header": " | ".join(metrics),
        "rule": "---|" * len(metrics),
        "values": " | ".join(
            f"{m['value']:.3f} [{m['low']:.3f}, {m['high']:.3f}]" for m in metrics.values()
        ),
        **sources(args.data),
    }
    (target / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    (target / "README.md").write_text(CARD.format(**facts), encoding="utf-8")
    settings = json.loads((target / "earwitness.json").read_text(encoding="utf-8"))
    settings["card"] = {
        "summary": f"Diffusion-Link, zero-shot, {facts['parameters']:.1f} M parameters, CIDEr-D "
        f"{metrics['cider_d']['value']:.2f} on {len(files)} AudioCaps validation clips",
        "licence": "research and non-commercial use; see README.md",
        "metrics": metrics,
    }
    (target / "earwitness.json").write_text(json.dumps(settings, indent=2) + "\n")
    files = [path for path in PACKAGE.glob("pocket-*/**/*") if path.is_file()]
    total = sum(path.stat().st_size for path in files) / 1e6
    print(f"{target}: {size:.1f} MB; all pocket models: {total:.1f} MB")


if __name__ == "__main__":
    main()
