"""What the Token Guide does to the words of human captions, with another clip's guide as control.

A guide that only raises words that are common everywhere helps every clip alike, and the guide of
another clip as much as its own. What it knows of the clip shows in the difference of the two.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from earwitness.lamb.aligner import masked_mean
from earwitness.statistics import (
    draw_seeds,
    interval,
    mean_of,
    over_seeds,
    replicates,
    shifted_test,
    value,
)
from earwitness.system.captioner import AudioTokens, TorchCaptioner
from earwitness.system.decoder import Texts

Losses = dict[str, Float[np.ndarray, " clips"]]
"""condition -> mean loss of the content words of each clip's captions, in nats"""


class NoContentWordError(ValueError):
    """A clip none of whose captions has a content word."""


@torch.inference_mode()
def content_losses(
    captioner: TorchCaptioner,
    tokens: Sequence[AudioTokens],
    references: Sequence[Sequence[str]],
    scales: Sequence[float] = (1.0,),
) -> Losses:
    """The loss of content words under each of `guide_biases`.

    `tokens` are those of each clip. Each caption is read once without a guide: a guide is the same
    at every step, so the others follow from the same logits.
    """
    biases = guide_biases(captioner, tokens, scales)
    content = captioner.decoder.content_ids()
    sums = {name: np.zeros(len(tokens)) for name in biases}
    for clip, (z_a, captions) in enumerate(zip(tokens, references, strict=True)):
        texts = captioner.decoder.tokenize(list(captions))
        rows = len(captions)
        logits = captioner.decoder(z_a.z.expand(rows, -1, -1), z_a.mask.expand(rows, -1), texts)
        for name, bias in biases.items():
            sums[name][clip] = _mean_loss(logits + bias[clip], texts, content)
    return sums


def _mean_loss(logits: Float[Tensor, "R L V"], texts: Texts, content: Bool[Tensor, " V"]) -> float:
    chosen = texts.mask & content[texts.ids]
    if not bool(chosen.any()):
        raise NoContentWordError("no caption of this clip has a content word")
    losses = torch.nn.functional.cross_entropy(logits[chosen].float(), texts.ids[chosen])
    return float(losses)


def guide_biases(
    captioner: TorchCaptioner, tokens: Sequence[AudioTokens], scales: Sequence[float]
) -> dict[str, Float[Tensor, "clips V"]]:
    """What several guides add to the logits of each clip.

    `off`: none; `own`: the model's; `other`: the model's, of the next clip. For each of `scales`
    also `centered xS` and `centered xS, other`: beta times 2 (z - mean z) . e times the scale, with
    the mean over these clips, whatever the model's own form.
    """
    own = torch.cat([_bias(captioner, z_a) for z_a in tokens])
    found = {"off": torch.zeros_like(own), "own": own, "other": own.roll(1, 0)}
    beta = float(captioner.guide.beta) if captioner.guide is not None else 0.0
    means = torch.cat([masked_mean(z_a.z.float(), z_a.mask) for z_a in tokens])
    special = captioner.decoder.special
    part = 2 * (means - means.mean(0)) @ captioner.decoder.table.float().T
    part = (part - part[:, ~special].mean(1, keepdim=True)).masked_fill(special, 0.0)
    for scale in scales:
        found[f"centered x{scale:g}"] = scale * beta * part
        found[f"centered x{scale:g}, other"] = scale * beta * part.roll(1, 0)
    return found


def _bias(captioner: TorchCaptioner, z_a: AudioTokens) -> Float[Tensor, "1 V"]:
    bias = captioner.guide_bias(z_a)
    return (
        torch.zeros_like(captioner.decoder.special[None], dtype=torch.float)
        if bias is None
        else bias
    )


@dataclass(frozen=True)
class Shape:
    """What a guide's scores are made of."""

    norm_correlation: float
    """between the mean scores over clips and -|e|^2, over ordinary tokens"""
    spread: float
    """standard deviation of beta g over tokens, in logits, mean over clips"""
    clip_spread: float
    """the same after subtracting the mean over clips"""


@torch.inference_mode()
def guide_shape(captioner: TorchCaptioner, tokens: Sequence[AudioTokens]) -> Shape:
    """How much of the guide is the norm of words, and how much differs between clips."""
    bias = torch.cat([_bias(captioner, z_a) for z_a in tokens])[:, ~captioner.decoder.special]
    norms = captioner.decoder.table.float().square().sum(1)[~captioner.decoder.special]
    together = torch.corrcoef(torch.stack([bias.mean(0), -norms]))
    own = bias - bias.mean(0)
    return Shape(float(together[0, 1]), float(bias.std(1).mean()), float(own.std(1).mean()))


class Change(NamedTuple):
    """A mean difference in nats, its 95 % interval, and its two-sided p."""

    mean: float
    low: float
    high: float
    p: float


def difference(
    runs: Sequence[Losses], first: str, second: str, draws: int = 2000, seed: int = 0
) -> Change:
    """Mean loss under `first` minus that under `second`: a hierarchical bootstrap over clips, the
    same for all `runs` (training seeds), and over runs.
    """
    gaps = [mean_of(run[first] - run[second]) for run in runs]
    clips = len(runs[0][first])
    drawn = draw_seeds(len(runs), draws, np.random.default_rng(seed))
    means = over_seeds(replicates(gaps, clips, draws, seed), drawn)
    mean = float(np.mean([value(gap, clips) for gap in gaps]))
    return Change(mean, *interval(means), shifted_test(means, mean))
