"""Validation of stage `lamb`: losses, greedy captions against all references, alignment with its
controls; and which score chooses the best weights.
"""

from collections.abc import Sized
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import Dataset

from earwitness.config import Strict
from earwitness.errors import ConfigError
from earwitness.evaluation import evaluate
from earwitness.lamb.aligner import masked_mean
from earwitness.lamb.alignment import alignment, mean_caption_cosine
from earwitness.system.captioner import TorchCaptioner
from earwitness.training.batches import validation_batches
from earwitness.training.progress import note
from earwitness.training.settings import Selection
from earwitness.training.source import Item
from earwitness.training.sources import collate


class ValidationConfig(Strict):
    """Which scores a validation computes, and which of them chooses the weights in `best`."""

    select: str = "cider_d"
    """a score of captions (the highest is best) or a loss (the lowest is): a loss would prefer the
    model that knows captions best over the one that listens best"""
    metrics: tuple[str, ...] = ("cider_d", "meteor", "sbert_sim", "fense")
    """scores of captions, of those that can run here: METEOR needs Java, the last two `sbert`"""
    sbert: str | None = None
    """sentence encoder: a folder, a hub id, or an installed one by name"""
    fluency: str | None = None
    """fluency detector of FENSE: a folder or a hub id"""
    captions: int | None = None
    """clips that are captioned, from the first on; all unless given"""


@runtime_checkable
class Referenced(Protocol):
    """Items that have several captions each."""

    @property
    def references(self) -> list[list[str]]:
        """All captions of each item, normalized."""
        ...


def selection(config: ValidationConfig, losses: dict[str, float], items: Sized) -> Selection:
    """The score that chooses the best weights.

    With a single validation clip CIDEr-D is not defined; the loss `decode` is used instead, with a
    note.

    Raises:
        ConfigError: the chosen score is not a loss and cannot be computed here. DataError: there is
            no score of that name.
    """
    name = config.select
    if name in losses:
        return Selection(name, "lowest")
    if name == "cider_d" and len(items) < 2:
        note(
            "the validation set holds one clip, for which CIDEr-D is not defined: the best weights "
            "are those of the lowest loss 'decode'"
        )
        return Selection("decode", "lowest")
    trial = caption_scores(
        ["a dog barks", "rain falls"], [["a dog barks"], ["it rains"]], config, name
    )
    if name not in trial.corpus:
        reason = "; ".join(trial.not_run.values()) or "it is not a score of a whole set"
        raise ConfigError(f"validation.select: '{name}' cannot be computed here: {reason}")
    return Selection(name)


def validate_lamb(
    captioner: TorchCaptioner,
    training: Any,
    items: Dataset[Item],
    config: ValidationConfig,
    batch_size: int = 50,
) -> dict[str, float]:
    """Mean losses over validation items, scores of their greedy captions against all references,
    and alignment (see `lamb.alignment`).

    `gap_l2` and `gap_cosine` are the two quantities of LAMB's Table 2. `training` is the
    `LambTraining` around `captioner`.
    """
    assert isinstance(items, Sized)
    sums: dict[str, float] = {}
    captions: list[str] = []
    texts: list[str] = []
    audio: list[Tensor] = []
    text: list[Tensor] = []
    greedy = captioner.config.decoding.model_copy(update={"beam_size": 1, "n_best": 1})
    wanted = len(items) if config.captions is None else config.captions
    for batch, count in validation_batches(items, collate, captioner.device, batch_size):
        z_a = captioner.audio_tokens(training.frames(batch))
        if len(captions) < wanted:
            captions += [row[0].text for row in captioner.generate(z_a, greedy)]
        texts += batch["texts"]
        audio.append(masked_mean(*z_a))
        text.append(captioner.pooled_text(batch["texts"]))
        for name, loss in training(batch).items():
            sums[name] = sums.get(name, 0.0) + float(loss) * count / len(items)
    references = references_of(items, texts)
    aligned = _alignment(captioner, torch.cat(audio), torch.cat(text), texts, references)
    scores = caption_scores(captions[:wanted], references[:wanted], config, *config.metrics)
    return {name: score.value for name, score in scores.corpus.items()} | sums | aligned


def references_of(items: object, texts: list[str]) -> list[list[str]]:
    """All captions of each item, if it has several; otherwise its one text."""
    return items.references if isinstance(items, Referenced) else [[text] for text in texts]


def caption_scores(
    captions: list[str], references: list[list[str]], config: ValidationConfig, *metrics: str
) -> Any:
    """`metrics` of captions against their references, over those clips that have one with words."""
    worded = [[text for text in group if text] for group in references]
    pairs = [(c, group) for c, group in zip(captions, worded, strict=True) if group]
    return evaluate(
        [caption for caption, _ in pairs],
        [group for _, group in pairs],
        metrics=list(dict.fromkeys(metrics)),
        sbert=config.sbert,
        fluency=config.fluency,
        resamples=0,
    )


def _alignment(
    captioner: TorchCaptioner,
    audio: Tensor,
    text: Tensor,
    texts: list[str],
    references: list[list[str]],
) -> dict[str, float]:
    found = {f"gap_{name}": value for name, value in alignment(audio, text).items()}
    found["mean_caption_cosine"] = mean_caption_cosine(text)
    others = [
        next((other for other in group if other != own), None)
        for own, group in zip(texts, references, strict=True)
    ]
    rows = [i for i, other in enumerate(others) if other]
    if rows:
        second = captioner.pooled_text([other for other in others if other])
        for name, value in alignment(second, text[rows]).items():
            found[f"other_caption_{name}"] = value
    return {name: float(value) for name, value in found.items()}
