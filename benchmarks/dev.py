"""Scores captioners on the 43 development recordings (AudioCaps validation, five captions each).

    python benchmarks/dev.py --data ../shared/data pocket-lamb blind=runs/pocket_blind/best

Prints one row a model with bootstrap 95 % intervals over recordings. `--captions out.md` writes
the first model's captions with their scores; `--show` prints them beside a human caption, which
stays out of any file.
`name@0=...` switches the Token Guide off in decoding.
"""

import argparse
import csv
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from earwitness import Captioner, audio, evaluate
from earwitness.system.captioner import AudioTokens
from earwitness.text import REPEATABLE_WORDS, normalize

METRICS = ("cider_d", "meteor", "rouge_l", "bleu_4")


def main() -> None:
    """Reads the command line and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("models", nargs="+", help="model, or name=folder")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument(
        "--captions", type=Path, help="Markdown file for the first model's captions"
    )
    parser.add_argument("--show", action="store_true", help="print captions beside a human one")
    parser.add_argument("--set", action="append", default=[], help="decoding key=value")
    args = parser.parse_args()
    files, references = read_dev(args.data / "dev")
    print("| model | " + " | ".join(METRICS) + " | repeated words | words | s/clip |")
    print("|---|" + "---|" * (len(METRICS) + 3))
    for number, model in enumerate(args.models):
        name, _, folder = model.rpartition("=")
        captions, seconds = caption_all(folder, files, name.endswith("@0"), args.set)
        scores = evaluate(captions, references)
        print(row(name or folder, scores, captions, seconds / len(files)), flush=True)
        if number == 0 and args.captions:
            args.captions.write_text(table(files, captions, scores), encoding="utf-8")
        if number == 0 and args.show:
            for file, caption, texts in zip(files, captions, references, strict=True):
                print(f"{file.stem}\n    {caption}\n    ({texts[0]})")


def read_dev(folder: Path) -> tuple[list[Path], list[list[str]]]:
    """The recordings and their normalised captions."""
    with (folder / "captions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    files = [folder / "clips" / r["file"] for r in rows]
    return files, [[normalize(r[f"caption_{i}"]) for i in range(1, 6)] for r in rows]


def caption_all(
    model: str, files: list[Path], without_guide: bool = False, changes: Sequence[str] = ()
) -> tuple[list[str], float]:
    """The captions and how long they took together."""
    captioner = Captioner.load(model)
    settings = captioner.config.decoding.model_dump()
    settings |= {k: type(settings[k])(eval(v)) for k, v in (c.split("=") for c in changes)}
    if without_guide:
        settings["guide_strength"] = 0.0
    decoding = type(captioner.config.decoding)(**settings)
    start = time.perf_counter()
    captions = captioner.caption_batch([str(f) for f in files], decoding=decoding)
    return [c.text for c in captions], time.perf_counter() - start


@torch.inference_mode()
def caption_losses(
    captioner: Captioner, files: list[Path], references: list[list[str]]
) -> np.ndarray:
    """Mean loss (nats a token) of the references of each recording, with the guide where there is
    one. It varies far less from run to run than scores of single captions do.
    """
    found = []
    for file, texts in zip(files, references, strict=True):
        waveform = audio.load(file, captioner.encoder.sample_rate)
        z, mask = captioner.audio_tokens(captioner.encode([waveform]))
        tokens = AudioTokens(z.expand(len(texts), -1, -1), mask.expand(len(texts), -1))
        losses = captioner.losses(tokens, texts, torch.arange(len(texts)))
        found.append(float(losses.get("guide", losses["decode"])))
    return np.array(found)


def row(name: str, scores: object, captions: list[str], seconds: float) -> str:
    """One line of the table."""
    cells = []
    for metric in METRICS:
        score = scores.corpus[metric]  # type: ignore[attr-defined]
        cells.append(f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]")
    style = f"{repeats(captions):.1%} | {words(captions):.1f}"
    return f"| {name} | " + " | ".join(cells) + f" | {style} | {seconds:.2f} |"


def words(captions: list[str]) -> float:
    """Mean number of words."""
    return sum(len(c.split()) for c in captions) / len(captions)


def repeats(captions: list[str]) -> float:
    """Share of the captions that say a content word twice."""
    return sum(map(repeats_word, captions)) / len(captions)


def repeats_word(caption: str) -> bool:
    """True where a content word is said twice."""
    content = [w for w in caption.split() if len(w) > 2 and w not in REPEATABLE_WORDS]
    return len(content) != len(set(content))


def table(files: list[Path], captions: list[str], scores: object) -> str:
    """Markdown: recording, caption, CIDEr-D."""
    lines = ["| recording | caption | CIDEr-D |", "|---|---|---|"]
    for file, caption, per in zip(files, captions, scores.per_clip, strict=True):  # type: ignore[attr-defined]
        lines.append(f"| {file.stem} | {caption} | {per['cider_d']:.2f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
