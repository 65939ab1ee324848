"""Stage `lamb`: the LAMB system, its three losses together (arXiv 2601.04658)."""

from collections.abc import Sized
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from earwitness.encoders import load_frame_encoder
from earwitness.encoders.base import FrameEncoder, Frames
from earwitness.lamb.aligner import several_processes
from earwitness.models.frozen import PartlyFrozen
from earwitness.models.hub import WeightsName, resolved
from earwitness.models.names import POCKET_MODELS, model_folder, part_folder
from earwitness.models.weights import read_json
from earwitness.system.captioner import Batch, CaptionerConfig, TorchCaptioner
from earwitness.system.decoder import Decoder, LoraSize
from earwitness.system.folder import open_decoder
from earwitness.text import normalize
from earwitness.training.distributed import share_of_all
from earwitness.training.encoder_lora import (
    add_lora,
    has_lora,
    merged,
    train_lora,
)
from earwitness.training.fit import fit
from earwitness.training.lamb_validation import ValidationConfig, selection, validate_lamb
from earwitness.training.parts import (
    DecoderKeys,
    FrameEncoderKeys,
    open_frame_encoder,
    open_language_model,
)
from earwitness.training.progress import note
from earwitness.training.recipe import Job, StageRecipe
from earwitness.training.source import Opening, Splits
from earwitness.training.sources import Recordings, Source, cached_frames, collate
from earwitness.training.starting_model import check_same_model

LAMB_LOSSES = {"decode": 1.0, "guide": 1.0, "cs_global": 1.0, "cs_token": 1.0, "infonce": 1.0}
"""lambda and alpha of the paper are not given; 1 each"""

TOKEN_MEANS = ("decode", "guide")
"""losses that are means over caption tokens; the others are means over clips, or none"""


class LambRecipe(FrameEncoderKeys, DecoderKeys, StageRecipe):
    """Settings of the stage."""

    stage: Literal["lamb"]
    name: str = "lamb"
    source: Source
    init: WeightsName | None = None
    """model to start from, also by a pocket model's name: its encoder, language model and prefix"""
    encoder_tune: Literal["frozen", "lora"] = "frozen"
    encoder_lora: LoraSize = LoraSize()
    """for `encoder_tune = "lora"`; its weights are merged into the encoder that is saved"""
    model: CaptionerConfig = CaptionerConfig()
    losses: dict[str, float] = LAMB_LOSSES
    frame_dropout: float = 0.0
    """chance that a frame of the encoder is zeroed in training"""
    channel_dropout: float = 0.0
    """chance that a number of the encoder's frames is zeroed over a whole clip in training"""
    blind: bool = False
    """zeroes all audio: the baseline that only knows what captions look like"""
    validation: ValidationConfig = ValidationConfig()

    def prepare(self, folder: Path) -> Job:
        """Opens the data and the parts; the run leaves a model folder in `folder`/best."""
        return _prepare(self, folder)


class LambTraining(PartlyFrozen):
    """A captioner on batches of cached frames or waveforms; the encoder learns by LoRA, or not."""

    def __init__(
        self,
        captioner: TorchCaptioner,
        frame_dropout: float,
        blind: bool,
        channel_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.captioner, self.frame_dropout, self.blind = captioner, frame_dropout, blind
        self.channel_dropout = nn.Dropout1d(channel_dropout)

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The losses of `TorchCaptioner.forward`.

        On several processes, losses that are means over caption tokens are weighted so that their
        mean over the processes is the mean over all tokens.
        """
        h, mask = self.frames(batch)
        if self.training and self.frame_dropout:
            kept = torch.rand(h.shape[:2], device=h.device) >= self.frame_dropout
            h = h * kept[..., None]
        h = self.channel_dropout(h.transpose(1, 2)).transpose(1, 2)
        losses = self.captioner(Batch(Frames(h, mask), batch["texts"], batch["clip"]))
        if self.training and several_processes():
            tokens = self.captioner.decoder.tokenize(batch["texts"]).mask.sum()
            share = share_of_all(tokens)
            losses |= {name: losses[name] * share for name in TOKEN_MEANS if name in losses}
        return losses

    def frozen(self) -> tuple[Any, ...]:
        """The encoder."""
        return (self.captioner.encoder,)

    def train(self, mode: bool = True) -> "LambTraining":
        """Training mode everywhere but in the encoder; its LoRA has dropout."""
        super().train(mode)
        train_lora(self.captioner.encoder, mode)
        return self

    def frames(self, batch: dict[str, Any]) -> Frames:
        """The cached frames, or those of the batch's waveforms; none with `blind`."""
        if "frames" in batch:
            h, mask = cached_frames(batch)
        else:
            learns = torch.is_grad_enabled() and has_lora(self.captioner.encoder)
            with torch.set_grad_enabled(learns):
                h, mask = self.captioner.encoder(batch["waveforms"], batch["lengths"])
        return Frames(torch.zeros_like(h) if self.blind else h, mask)


def _prepare(recipe: LambRecipe, run_folder: Path) -> Job:
    if recipe.init and str(recipe.init) in POCKET_MODELS:
        recipe = recipe.model_copy(update={"init": model_folder(recipe.init)})
    recipe = resolved(recipe, ("init", "encoder", "decoder"), run_folder / "weights.json")
    torch.manual_seed(recipe.fit.seed)
    encoder = _encoder(recipe)
    frozen = encoder if recipe.encoder_tune == "frozen" else None
    splits = recipe.source.open(
        Opening(recipe.encoder, encoder.sample_rate, run_folder.parent, recipe.fit.seed, frozen)
    )
    torch.manual_seed(recipe.fit.seed)
    captioner = TorchCaptioner(encoder, _decoder(recipe, splits), recipe.model, recipe.name)
    if recipe.encoder_tune == "lora":
        add_lora(encoder, recipe.encoder_lora)
    if recipe.init:
        check_same_model(recipe.model, recipe.init)
        captioner.load_own_parts(recipe.init)
    _take_captions(captioner, splits)
    assert isinstance(splits.validation, Sized)
    select = selection(recipe.validation, LAMB_LOSSES, splits.validation)
    return lambda: fit(
        LambTraining(captioner, recipe.frame_dropout, recipe.blind, recipe.channel_dropout),
        splits.train,
        collate,
        recipe.losses,
        recipe.fit,
        run_folder,
        validate=lambda trained: _validate(trained, splits, recipe),
        save=lambda trained, folder: _save(trained, folder, recipe),
        select=select,
    )


def _validate(model: nn.Module, splits: Splits, recipe: LambRecipe) -> dict[str, float]:
    assert isinstance(model, LambTraining)
    return validate_lamb(model.captioner, model, splits.validation, recipe.validation)


def _take_captions(captioner: TorchCaptioner, splits: Splits) -> None:
    """Counts the words of the training captions if the aligner needs the counts, and names the
    first caption without any words, which is left out of alignment.
    """
    decoder, aligner = captioner.decoder, captioner.aligner
    if aligner is None or not splits.captions:
        return
    rows = decoder.tokenizer(splits.captions, add_special_tokens=False).input_ids
    ordinary = ~decoder.special.cpu()
    words = [ordinary[torch.tensor(row, dtype=torch.long)].any() for row in rows]
    wordless = [text for text, known in zip(splits.captions, words, strict=True) if not known]
    if wordless:
        note(
            f"{_whose(splits, wordless[0])} has no word that the language model knows: the "
            f"aligner leaves it out ({len(wordless)} of {len(rows)} captions)"
        )
    flat = torch.tensor([i for row in rows for i in row], dtype=torch.long)
    aligner.count_words(torch.bincount(flat, minlength=len(ordinary)))


def _whose(splits: Splits, text: str) -> str:
    """The caption `text`, after normalization, with its clip if that is known."""
    clips = splits.train.clips if isinstance(splits.train, Recordings) else []
    for clip in clips:
        for caption in clip.captions:
            if normalize(caption) == text:
                return f"clip '{clip.id}': its caption {caption!r}"
    return f"the caption {text!r}"


def _encoder(recipe: LambRecipe) -> FrameEncoder:
    if recipe.init and not recipe.encoder:
        settings = read_json(recipe.init / "earwitness.json")
        return load_frame_encoder(part_folder(recipe.init, "encoder", settings))
    return open_frame_encoder(recipe)


def _decoder(recipe: LambRecipe, splits: Splits) -> Decoder:
    if recipe.init:
        return open_decoder(recipe.init, recipe.model.decoder, train=True)
    return open_language_model(recipe, recipe.model.decoder, splits.captions)


def _save(model: nn.Module, folder: Path, recipe: LambRecipe) -> None:
    assert isinstance(model, LambTraining)
    with merged(model.captioner.encoder):
        model.captioner.save(folder, recipe.fit.saved_dtype)
