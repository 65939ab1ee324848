"""Stage `audio_language`: LoRA on the language model of a third-party audio-language
model, with the question that `--model hf:` asks.

The best weights are an ordinary peft folder that names the base model; caption with
`--model hf:RUN/best`.
"""

from collections.abc import Sized
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from earwitness.adapters.audio_language import AudioLanguageCaptioner
from earwitness.adapters.settings import AdapterOptions
from earwitness.adapters.tuned import on_language_model, tuned
from earwitness.models.frozen import PartlyFrozen
from earwitness.models.hub import WeightsName, hub_part, resolved
from earwitness.system.decoder import LoraConfig, enable_checkpointing
from earwitness.system.lora import save_lora
from earwitness.training.batches import validation_batches
from earwitness.training.fit import fit
from earwitness.training.lamb_validation import (
    ValidationConfig,
    caption_scores,
    references_of,
    selection,
)
from earwitness.training.recipe import Job, StageRecipe
from earwitness.training.source import Opening, Splits
from earwitness.training.sources import Source, collate


class AudioLanguageRecipe(StageRecipe):
    """Settings of the stage."""

    stage: Literal["audio_language"]
    model: WeightsName
    """an audio-language model of a kind that `--model hf:` takes: a folder, or a name on the hub"""
    quantize: Literal["none", "int8", "nf4"] = "none"
    """loads the frozen weights in 8 or 4 bits (bitsandbytes)"""
    gradient_checkpointing: bool = False
    """compute each layer twice and keep only its input: less memory, more time"""
    lora: LoraConfig = LoraConfig()
    """on the layers of the language model with these names"""
    source: Source
    validation: ValidationConfig = ValidationConfig()

    def prepare(self, folder: Path) -> Job:
        """Opens data and model; the run leaves a peft folder in `folder`/best."""
        return _prepare(self, folder)


class AudioLanguageTraining(PartlyFrozen):
    """The model with LoRA weights that learn; the rest of it is frozen."""

    def __init__(self, captioner: AudioLanguageCaptioner, size: LoraConfig) -> None:
        super().__init__()
        self.captioner = captioner
        self.tuned = tuned(captioner.model, on_language_model(captioner.model, size))

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The loss of the captions' tokens."""
        return {"decode": self.captioner.loss(clips(batch), batch["texts"])}

    def frozen(self) -> tuple[Any, ...]:
        """The audio side."""
        parts = self.tuned.named_modules()
        return tuple(part for name, part in parts if name.endswith("audio_tower"))


def clips(batch: dict[str, Any]) -> list[np.ndarray]:
    """The waveforms of a batch without their padding."""
    rows = zip(batch["waveforms"].cpu().numpy(), batch["lengths"].tolist(), strict=True)
    return [row[:length] for row, length in rows]


def _prepare(recipe: AudioLanguageRecipe, run_folder: Path) -> Job:
    recipe = resolved(recipe, ("model",), run_folder / "weights.json")
    options = AdapterOptions(quantize=recipe.quantize)
    captioner = AudioLanguageCaptioner.load(str(recipe.model), "auto", options)
    splits = recipe.source.open(
        Opening(None, captioner.sample_rate, run_folder.parent, recipe.fit.seed)
    )
    assert isinstance(splits.validation, Sized)
    select = selection(recipe.validation, {"decode": 1.0}, splits.validation)
    torch.manual_seed(recipe.fit.seed)
    training = AudioLanguageTraining(captioner, recipe.lora)
    if recipe.gradient_checkpointing:
        enable_checkpointing(captioner.model)
    base = hub_part(recipe.model) or recipe.model.resolve()
    return lambda: fit(
        training,
        splits.train,
        collate,
        {},
        recipe.fit,
        run_folder,
        validate=lambda trained: _validate(trained, splits, recipe),
        save=lambda trained, folder: _save(trained, folder, base),
        select=select,
    )


def _validate(
    model: nn.Module, splits: Splits, recipe: AudioLanguageRecipe, batch_size: int = 8
) -> dict[str, float]:
    """The loss, and scores of greedy captions against all references."""
    assert isinstance(model, AudioLanguageTraining)
    captioner, items, config = model.captioner, splits.validation, recipe.validation
    assert isinstance(items, Sized)
    wanted = len(items) if config.captions is None else config.captions
    loss = 0.0
    captions: list[str] = []
    texts: list[str] = []
    for batch, count in validation_batches(items, collate, captioner.device, batch_size):
        loss += float(model(batch)["decode"]) * count / len(items)
        texts += batch["texts"]
        if len(captions) < wanted:
            rows = captioner.caption_together(clips(batch), captioner.decoding)
            captions += [row[0].text for row in rows]
    references = references_of(items, texts)
    scores = caption_scores(captions[:wanted], references[:wanted], config, *config.metrics)
    return {name: score.value for name, score in scores.corpus.items()} | {"decode": loss}


def _save(model: nn.Module, folder: Path, base: Any) -> None:
    assert isinstance(model, AudioLanguageTraining)
    save_lora(model.tuned, folder, base)
