"""What LAMB's Token Guide and aligner do, on the development recordings.

    python benchmarks/guide.py --data ../shared/data pocket-lamb
    python benchmarks/guide.py --data ../shared/data trained=pocket-lamb,runs/s1/best,runs/s2/best
    python benchmarks/guide.py --data ../shared/data --forms

A model is a name or a folder, or NAME=FOLDER; several seeds of one recipe are NAME=FOLDER,FOLDER.
`--forms` continues from pocket-lamb with either form of the guide, all else alike, with three
seeds, and compares the two.

The guide: the loss of content words of human captions (tokens that are whole words and no function
words) with the guide minus that without, and minus that with another clip's guide, which a guide
that raises the same words for every clip does not survive; then greedy captions by CIDEr-D. `own`
is the model's guide, `centered xS` S times the part of it that differs between clips.

Alignment: cosine of mean audio tokens to the own caption, its margin over other clips' captions and
the cosine without either side's mean, beside two controls: the mean of all captions in the audio's
place, and another human caption of the same clip.

Intervals are 95 %, by a hierarchical bootstrap over recordings and seeds; p by Holm within a model.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from dev import model_of
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from earwitness import audio
from earwitness.encoders.base import Frames
from earwitness.evaluation import Evaluation, compare, evaluate, pool
from earwitness.lamb.aligner import masked_mean
from earwitness.lamb.token_guide import GuideProcessor, TokenGuide, TokenGuideConfig
from earwitness.models.names import model_folder
from earwitness.statistics import holm
from earwitness.system.captioner import AudioTokens, TorchCaptioner
from earwitness.training.fit import weighted_sum
from earwitness.training.lamb import LAMB_LOSSES, LambTraining
from earwitness.training.optimizer import parameter_groups
from earwitness.training.source import Opening
from earwitness.training.sources import collate
from earwitness_lab.pocket.development import SETS, read_development
from earwitness_lab.pocket.ears_source import EarsSource
from earwitness_lab.pocket.guide_effect import (
    Losses,
    content_losses,
    difference,
    guide_biases,
    guide_shape,
)

FORMS = {"l2": TokenGuideConfig(), "centered": TokenGuideConfig(form="centered", beta=0.5)}
SEEDS = range(3)
UPDATES, BATCH = 80, 32
"""of `--forms`"""


def main() -> None:
    """Reads the command line and prints the tables of each model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("models", nargs="*", help="model, or name=folder")
    parser.add_argument("--forms", action="store_true", help="train both forms and compare them")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--set", choices=SETS, default="both")
    parser.add_argument("--scales", type=float, nargs="*", default=[5.0])
    args = parser.parse_args()
    torch.set_num_threads(1)
    files, references = read_development(args.data, args.set)
    known: list[Encoded] = []
    own: dict[str, tuple[list[Losses], list[dict[str, Evaluation]]]] = {}
    if args.forms:
        args.models += [f"{form}={','.join(trained(form, args))}" for form in FORMS]
    for model in map(model_of, args.models):
        losses, captions, aligned = [], [], []
        own[model.name] = losses, captions
        print(f"\n## {model.name}: {len(files)} recordings, {len(model.seeds)} seeds\n")
        for folder in model.seeds:
            captioner = TorchCaptioner.load(folder)
            tokens = tokens_of(captioner, files, known)
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
    if args.forms:
        print_forms(*(own[form] for form in FORMS))


def trained(form: str, args: argparse.Namespace) -> list[str]:
    """The folders of `form`, one per seed, trained unless they are there."""
    folders = [args.runs / f"guide-{form}-{seed}" for seed in SEEDS]
    for seed, folder in zip(SEEDS, folders, strict=True):
        if not (folder / "earwitness.json").exists():
            go_on(form, seed, args).save(folder)
    return [str(folder) for folder in folders]


def go_on(form: str, seed: int, args: argparse.Namespace) -> TorchCaptioner:
    """pocket-lamb after `UPDATES` more updates on scenes by all of LAMB's losses, its guide in
    `form`; everything but the encoder learns.
    """
    captioner = TorchCaptioner.load("pocket-lamb")
    guide = FORMS[form]
    captioner.config = captioner.config.model_copy(update={"guide": guide})
    captioner.guide = TokenGuide(guide, captioner.decoder.dim)
    source = EarsSource(kind="ears", folder=args.data, scenes=2000, singles=1, plain=0, heldout=1)
    encoder = model_folder("pocket-lamb") / "encoder"
    items = source.open(Opening(encoder, captioner.sample_rate, args.runs, seed)).train
    torch.manual_seed(seed)
    training, rng = LambTraining(captioner, 0.1, False).train(), np.random.default_rng(seed)
    groups = parameter_groups(training, 0.02, 1e-4, {"guide.beta": 1e-2})
    optimizer = torch.optim.AdamW(groups)
    for _ in range(UPDATES):
        batch = collate([items[(int(row), 0)] for row in rng.choice(2000, BATCH) + 1])
        loss = weighted_sum(training(batch), LAMB_LOSSES)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(training.parameters(), 1.0)
        optimizer.step()
    print(f"{form}, seed {seed}: beta {float(captioner.guide.beta):.3f}", flush=True)
    return captioner.eval()


class Encoded(NamedTuple):
    """An encoder's weights, and its frames of all recordings."""

    weights: dict[str, Tensor]
    frames: list[Frames]


@torch.inference_mode()
def tokens_of(
    captioner: TorchCaptioner, files: Sequence[Path], known: list[Encoded]
) -> list[AudioTokens]:
    """The audio tokens of each recording; an encoder that is `known` does not encode again."""
    weights = captioner.encoder.state_dict()  # type: ignore[attr-defined]
    for encoded in known:
        pairs = zip(encoded.weights.values(), weights.values(), strict=True)
        if encoded.weights.keys() == weights.keys() and all(torch.equal(*pair) for pair in pairs):
            return [captioner.audio_tokens(frames) for frames in encoded.frames]
    rate = captioner.sample_rate
    known.append(Encoded(weights, [captioner.encode([audio.load(f, rate)]) for f in files]))
    return [captioner.audio_tokens(frames) for frames in known[-1].frames]


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


def print_forms(
    first: tuple[Sequence[Losses], Sequence[dict[str, Evaluation]]],
    second: tuple[Sequence[Losses], Sequence[dict[str, Evaluation]]],
) -> None:
    """The second form minus the first, each with its own guide."""
    runs = [{"1": a["own"], "2": b["own"]} for a, b in zip(first[0], second[0], strict=True)]
    loss = difference(runs, "2", "1")
    captions = [[found["own"] for found in form[1]] for form in (second, first)]
    score = compare(*captions, names=["cider_d"])["cider_d"]
    ps = holm([loss.p, score.p])
    print(
        f"\n{' less '.join(reversed(FORMS))}, each with its own guide: loss of content words ",
        end="",
    )
    print(
        f"{loss.mean:+.4f} [{loss.low:+.4f}, {loss.high:+.4f}], p = {ps[0]:.3f}; CIDEr-D ", end=""
    )
    print(f"{score.difference:+.3f} [{score.low:+.3f}, {score.high:+.3f}], p = {ps[1]:.3f}")


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
