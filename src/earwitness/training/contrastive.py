"""Stage `contrastive`: a small dual encoder, trained as CLAP is, over a frozen frame encoder."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from earwitness.encoders import load_embedding_encoder, save_embedding_encoder
from earwitness.encoders.base import FrameEncoder, Frames
from earwitness.encoders.dual import DualConfig, DualEncoder, TextTowerConfig
from earwitness.errors import ConfigError
from earwitness.gap.clouds import make_pairs
from earwitness.gap.retrieval import hits
from earwitness.lamb.aligner import caption_codes, gather_rows, info_nce, several_processes
from earwitness.models.frozen import PartlyFrozen
from earwitness.models.hub import resolved
from earwitness.models.llama import LlamaSize
from earwitness.system.captioner import load_decoder
from earwitness.system.decoder import DecoderConfig
from earwitness.training.batches import validation_batches
from earwitness.training.fit import fit
from earwitness.training.parts import (
    FrameEncoderKeys,
    new_language_model,
    not_named,
    open_frame_encoder,
)
from earwitness.training.recipe import Job, StageRecipe
from earwitness.training.settings import Selection
from earwitness.training.source import Opening, Splits
from earwitness.training.sources import Source, cached_frames, collate


class ContrastiveRecipe(FrameEncoderKeys, StageRecipe):
    """Settings of the stage. The frame encoder is frozen; the text tower has the sizes of the
    language model it starts from.
    """

    stage: Literal["contrastive"]
    source: Source
    init: Path | None = None
    """folder of a dual encoder to start from, over the frames of `encoder`; its sizes apply"""
    tune: Literal["all", "audio"] = "all"
    """audio: texts keep their embeddings, so that what was trained on them stays valid"""
    text: Path | None = None
    """folder of a Llama; the text tower starts from its first layers"""
    new_text: LlamaSize | None = None
    """instead of it, an untrained one, with a tokenizer made from the training captions"""
    text_layers: PositiveInt = 2
    dual: DualConfig = DualConfig()
    frame_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """chance that a frame is dropped in training"""

    def prepare(self, folder: Path) -> Job:
        """Opens the data and the parts; the run leaves a dual encoder in `folder`/best/encoder."""
        return _prepare(self, folder)


class DualTraining(PartlyFrozen):
    """A dual encoder on batches of cached frames or waveforms; its frame encoder stays frozen."""

    def __init__(self, dual: DualEncoder, frame_dropout: float) -> None:
        super().__init__()
        self.dual, self.frame_dropout = dual, frame_dropout
        frames: Any = dual.frames
        frames.requires_grad_(False)

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """`contrastive`: symmetric InfoNCE over the pairs of all processes; equal captions are not
        each other's negatives.
        """
        audio, text = self.vectors(batch)
        caption = caption_codes(batch["texts"], audio.device)
        if self.training and several_processes():
            audio, text, caption = gather_rows(audio), gather_rows(text), gather_rows(caption)
        return {"contrastive": info_nce(audio, text, self.dual.scale, caption)}

    def vectors(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Unit-norm audio and text embeddings of a batch."""
        h, mask = self._frames(batch)
        if self.training and self.frame_dropout:
            kept = torch.rand(mask.shape, device=mask.device) >= self.frame_dropout
            # The first frame stays, so that no clip is left without any.
            kept[:, 0] = True
            mask = mask & kept
        return self.dual.embed_frames(h, mask), self.dual.text_vectors(batch["texts"])

    def frozen(self) -> tuple[Any, ...]:
        """The frame encoder; with `tune` "audio" the text side too."""
        dual = self.dual
        learns = any(p.requires_grad for p in dual.text.parameters())
        return (dual.frames,) if learns else (dual.frames, dual.text, dual.text_head)

    def _frames(self, batch: dict[str, Any]) -> Frames:
        if "frames" in batch:
            return cached_frames(batch)
        with torch.no_grad():
            return self.dual.frames(batch["waveforms"], batch["lengths"])


def _prepare(recipe: ContrastiveRecipe, run_folder: Path) -> Job:
    recipe = resolved(recipe, ("encoder",), run_folder / "weights.json")
    torch.manual_seed(recipe.fit.seed)
    frames = open_frame_encoder(recipe)
    splits = recipe.source.open(
        Opening(recipe.encoder, frames.sample_rate, run_folder.parent, recipe.fit.seed)
    )
    torch.manual_seed(recipe.fit.seed)
    dual = _going_on(recipe) if recipe.init else _dual(recipe, frames, splits)
    if recipe.tune == "audio":
        only_audio(dual)
    return lambda: fit(
        DualTraining(dual, recipe.frame_dropout),
        splits.train,
        collate,
        {},
        recipe.fit,
        run_folder,
        validate=lambda trained: validation(trained, splits.validation),
        save=lambda trained, folder: _save(trained, folder, recipe),
        select=Selection("recall"),
    )


def validation(model: nn.Module, items: Any, batch_size: int = 100) -> dict[str, float]:
    """Retrieval both ways on every second held-out item, and `recall`, the mean of the two R@10.

    The others are kept for reporting, as in the stages that follow.
    """
    assert isinstance(model, DualTraining)
    sides: tuple[list[np.ndarray], list[np.ndarray]] = [], []
    chosen = range(0, len(items), 2)
    device = model.dual.device
    for batch, _ in validation_batches(items, collate, device, batch_size, chosen):
        for side, vectors in zip(sides, model.vectors(batch), strict=True):
            side.append(vectors.float().cpu().numpy())
    audio, text = (np.concatenate(side) for side in sides)
    return recall(audio, text) | {"scale": float(model.dual.scale)}


def recall(
    audio: Float[np.ndarray, "N C"],
    text: Float[np.ndarray, "M C"],
    owner: Int[np.ndarray, " M"] | None = None,
) -> dict[str, float]:
    """R@1, R@5, R@10 from sound to caption and back, and `recall`, the mean of the two R@10."""
    pairs = make_pairs(audio, text, owner, normalize=True)
    from_audio, from_text = hits(pairs)
    scores = {}
    for column, k in enumerate((1, 5, 10)):
        scores[f"audio_to_text_r{k}"] = float(from_audio[:, column].mean())
        scores[f"text_to_audio_r{k}"] = float(from_text[:, column].mean())
    scores["recall"] = (scores["audio_to_text_r10"] + scores["text_to_audio_r10"]) / 2
    return scores


def only_audio(dual: DualEncoder) -> None:
    """Freezes everything but the audio head."""
    dual.requires_grad_(False)
    dual.audio_head.requires_grad_(True)


def _going_on(recipe: ContrastiveRecipe) -> DualEncoder:
    dual: Any = load_embedding_encoder(recipe.init or Path(), recipe.encoder)
    if not isinstance(dual, DualEncoder):
        raise ConfigError(f"init: {recipe.init} is not a dual encoder")
    return dual.requires_grad_(True)


def _dual(recipe: ContrastiveRecipe, frames: FrameEncoder, splits: Splits) -> DualEncoder:
    if recipe.text:
        decoder = load_decoder(recipe.text, DecoderConfig(tune="full"))
        model, tokenizer = decoder.model, decoder.tokenizer
    elif recipe.new_text:
        tokenizer, model = new_language_model(recipe.new_text, splits.captions)
    else:
        raise not_named("text tower", "text")
    sizes = _sizes(model.config, recipe)
    dual = DualEncoder(frames, tokenizer, recipe.dual.model_copy(update={"text": sizes}))
    wanted = dual.text.state_dict()
    state = {name: value for name, value in model.model.state_dict().items() if name in wanted}
    dual.text.load_state_dict(state, strict=True)
    return dual


def _sizes(config: Any, recipe: ContrastiveRecipe) -> TextTowerConfig:
    if config.model_type != "llama" or config.num_key_value_heads != config.num_attention_heads:
        raise ConfigError(
            f"{recipe.text}: a text tower starts as a Llama without grouped attention, "
            f"this is a {config.model_type!r} model"
        )
    return TextTowerConfig(
        vocabulary=config.vocab_size,
        hidden=config.hidden_size,
        layers=min(recipe.text_layers, config.num_hidden_layers),
        heads=config.num_attention_heads,
        feed_forward=config.intermediate_size,
        max_tokens=recipe.dual.text.max_tokens,
    )


def _save(model: nn.Module, folder: Path, recipe: ContrastiveRecipe) -> None:
    assert isinstance(model, DualTraining)
    save_embedding_encoder(model.dual, folder / "encoder", recipe.fit.saved_dtype)
