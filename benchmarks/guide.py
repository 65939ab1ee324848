"""What LAMB's Token Guide and aligner do, on the development recordings.

    python benchmarks/guide.py --data ../shared/data pocket-lamb
    python benchmarks/guide.py --data ../shared/data trained=pocket-lamb,runs/s1/best,runs/s2/best

A model is a name or a folder, or NAME=FOLDER; several seeds of one recipe are NAME=FOLDER,FOLDER.

The guide: the loss of content words of human captions (tokens that are whole words and no function
words) with the guide less that without, and less that with another clip's guide, which a guide that
raises the same words for every clip does not survive; then greedy captions by CIDEr-D. `own` is the
model's guide, `centered xS` S times the part of it that tells the clip from the others.

Alignment: cosine of mean audio tokens to the own caption, its margin over other clips' captions and
the cosine without either side's mean, beside two controls: the mean of all captions in the audio's
place, and another human caption of the same clip.

Intervals are 95 %, by a hierarchical bootstrap over recordings and seeds; p by Holm within a model.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from dev import model_of
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from earwitness import audio
from earwitness.evaluation import Evaluation, compare, evaluate, pool
from earwitness.lamb.aligner import masked_mean
from earwitness.lamb.token_guide import GuideProcessor
from earwitness.statistics import holm
from earwitness.system.captioner import AudioTokens, TorchCaptioner
from earwitness_lab.pocket.development import SETS, read_development
from earwitness_lab.pocket.guide_effect import (
    Losses,
    content_losses,
    difference,
    guide_biases,
    guide_shape,
)


def main() -> None:
    """Reads the command line and prints the tables of each model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("models", nargs="+", help="model, or name=folder")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--set", choices=SETS, default="both")
    parser.add_argument("--scales", type=float, nargs="*", default=[5.0])
    args = parser.parse_args()
    files, references = read_development(args.data, args.set)
    for model in map(model_of, args.models):
        losses, captions, aligned = [], [], []
        print(f"\n## {model.name}: {len(files)} recordings, {len(model.seeds)} seeds\n")
        for folder in model.seeds:
            captioner = TorchCaptioner.load(folder)
            tokens = [tokens_of(captioner, file) for file in files]
            losses.append(content_losses(captioner, tokens, references, args.scales))
            captions.append(captioned(captioner, tokens, references, args.scales))
            aligned.append(alignments(captioner, tokens, references))
            shape = guide_shape(captioner, tokens)
            print(
                f"{folder}: correlation with -|e|^2 {shape.norm_correlation:.3f}; standard "
                f"deviation {shape.spread:.3f} logits, of the clip's own part "
                f"{shape.clip_spread:.3f}",
                flush=True,
            )
        print_guides(losses, captions)
        print_alignment(aligned)


@torch.inference_mode()
def tokens_of(captioner: TorchCaptioner, file: Path) -> AudioTokens:
    """The audio tokens of a recording."""
    return captioner.audio_tokens(captioner.encode([audio.load(file, captioner.sample_rate)]))


@torch.inference_mode()
def captioned(
    captioner: TorchCaptioner,
    tokens: Sequence[AudioTokens],
    references: list[list[str]],
    scales: Sequence[float],
) -> dict[str, Evaluation]:
    """Greedy captions under every guide, evaluated."""
    greedy = captioner.config.decoding.model_copy(update={"beam_size": 1, "n_best": 1})
    z, mask = torch.cat([t.z for t in tokens]), torch.cat([t.mask for t in tokens])
    found = {}
    for name, bias in guide_biases(captioner, tokens, scales).items():
        rows = captioner.decoder.generate(z, mask, greedy, [GuideProcessor(bias)])
        found[name] = evaluate([row[0].text for row in rows], references, metrics=["cider_d"])
    return found


def print_guides(losses: Sequence[Losses], captions: Sequence[dict[str, Evaluation]]) -> None:
    """One row per guide."""
    guides = [name for name in losses[0] if name != "off" and not name.endswith("other")]
    others = {name: "other" if name == "own" else f"{name}, other" for name in guides}
    pairs = [(name, control) for name in guides for control in ("off", others[name])]
    changes = [difference(losses, *pair) for pair in pairs]
    scores = [
        compare([c[a] for c in captions], [c[b] for c in captions], names=["cider_d"])["cider_d"]
        for a, b in pairs
    ]
    corrected = holm([found.p for found in [*changes, *scores]])
    cells = [
        f"{c.mean:+.4f} [{c.low:+.4f}, {c.high:+.4f}], p = {p:.3f}"
        for c, p in zip(changes, corrected, strict=False)
    ]
    score_cells = [
        f"{s.difference:+.3f} [{s.low:+.3f}, {s.high:+.3f}], p = {p:.3f}"
        for s, p in zip(scores, corrected[len(changes) :], strict=True)
    ]
    print(
        "\n| guide | loss against none | against another clip's | CIDEr-D | against none | ", end=""
    )
    print("against another clip's |\n|---|---|---|---|---|---|")
    for row, name in enumerate(["off", *guides]):
        score = pool([c[name] for c in captions])["cider_d"]
        told = f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]"
        here = slice(2 * row - 2, 2 * row)
        first, second = (cells[here], score_cells[here]) if row else (["", ""], ["", ""])
        print(f"| {name} | {' | '.join(first)} | {told} | {' | '.join(second)} |")


@torch.inference_mode()
def alignments(
    captioner: TorchCaptioner, tokens: Sequence[AudioTokens], references: list[list[str]]
) -> dict[str, Losses]:
    """What stands for each clip -> quantity -> its value for each clip that has two captions."""
    kept = [n for n, texts in enumerate(references) if len(texts) > 1]
    sounds = torch.cat([masked_mean(tokens[n].z.float(), tokens[n].mask) for n in kept])
    own, other = (captioner.pooled_text([references[n][k] for n in kept]) for k in (0, 1))
    constant = own.mean(0).expand_as(own)
    stands = {"audio tokens": sounds, "mean caption": constant, "another caption": other}
    return {name: _alignment(cloud, own) for name, cloud in stands.items()}


def _alignment(cloud: Tensor, own: Tensor) -> Losses:
    similarity = normalize(cloud, dim=1) @ normalize(own, dim=1).T
    cosine, count = similarity.diagonal(), len(own)
    margin = cosine - (similarity.sum(1) - cosine) / (count - 1)
    centered = cosine_similarity(cloud - cloud.mean(0), own - own.mean(0))
    found = {"cosine": cosine, "margin": margin, "centered cosine": centered}
    return {name: values.numpy().astype(np.float64) for name, values in found.items()}


def print_alignment(aligned: Sequence[dict[str, Losses]]) -> None:
    """One row per thing that stands for a clip."""
    quantities = list(aligned[0]["audio tokens"])
    print("\n| in the clip's place | " + " | ".join(quantities) + " |\n|---|---|---|---|")
    for name in aligned[0]:
        cells = []
        for quantity in quantities:
            runs = [{"a": one[name][quantity], "0": 0 * one[name][quantity]} for one in aligned]
            found = difference(runs, "a", "0")
            cells.append(f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
