"""Stage `link`: Diffusion-Link's captioner (arXiv 2510.11330), behind a frozen bridge.

Two protocols. "zero_shot": projector and language model learn from text alone - the caption is
predicted from its own embedding, carried through the bridge - and get audio only at inference; the
bridge itself was trained on pairs. "supervised": they learn from bridged audio embeddings.
"""

from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from earwitness.caption import Decoding
from earwitness.encoders import EmbeddingFrames, load_embedding_encoder, one_frame
from earwitness.errors import ConfigError
from earwitness.link import (
    AnyBridgeConfig,
    LinkPrefix,
    LinkPrefixConfig,
    NoBridgeConfig,
    load_bridge,
)
from earwitness.link.base import Bridge, Side
from earwitness.models.frozen import PartlyFrozen
from earwitness.models.hub import WeightsName, resolved
from earwitness.system.captioner import (
    AudioTokens,
    CaptionerConfig,
    TorchCaptioner,
)
from earwitness.system.decoder import DecoderConfig
from earwitness.training.batches import validation_batches
from earwitness.training.embeddings import (
    PairItems,
    Pairs,
    collate_pairs,
    fresh_generator,
    open_embeddings,
)
from earwitness.training.fit import fit
from earwitness.training.parts import DecoderKeys, open_language_model
from earwitness.training.recipe import Job, StageRecipe
from earwitness.training.settings import Selection
from earwitness.training.sources import Source

PROTOCOLS: dict[str, Side] = {"zero_shot": "text", "supervised": "audio"}
"""protocol -> whose embeddings the language model learns from"""


class LinkRecipe(DecoderKeys, StageRecipe):
    """Settings of the stage."""

    stage: Literal["link"]
    name: str = "link"
    protocol: Literal["zero_shot", "supervised"]
    source: Source
    pairs: PositiveInt | None = None
    """how many training captions, from the first on; all unless given"""
    encoder: WeightsName
    """an embedding encoder: a folder, or a CLAP on the hub"""
    bridge: Path | None = None
    """folder of a trained bridge; without one the system has none: the paper's baseline"""
    untrained_bridge: AnyBridgeConfig = NoBridgeConfig()
    """without a folder, a bridge that needs neither training nor statistics"""
    hidden: PositiveInt = 2048
    """inside the projector"""
    language_model: DecoderConfig = DecoderConfig(instruction="Describe the audio you hear.")
    decoding: Decoding = Decoding()

    def prepare(self, folder: Path) -> Job:
        """Opens the embeddings and the parts; the run leaves a model folder in `folder`/best."""
        return _prepare(self, folder)


class LinkTraining(PartlyFrozen):
    """A captioner on batches of embeddings of one side; the bridge draws fresh noise each time."""

    def __init__(self, captioner: TorchCaptioner, protocol: str) -> None:
        super().__init__()
        self.captioner = captioner
        self.side: Side = PROTOCOLS[protocol]

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """`decode`: cross-entropy of the caption and its end token."""
        z = self._tokens(batch[self.side], self.side, fresh_generator(batch["text"].device))
        return self.captioner.losses(z, batch["captions"], batch["clip"])

    def frozen(self) -> tuple[Any, ...]:
        """The encoder."""
        return (self.captioner.encoder,)

    def audio_losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The losses of the batch's audio, as the captioner is used."""
        z = self._tokens(batch["audio"], "audio", None)
        return self.captioner.losses(z, batch["captions"], batch["clip"])

    def _tokens(self, e: Tensor, side: Side, generator: torch.Generator | None) -> AudioTokens:
        prefix = self.captioner.prefix
        assert isinstance(prefix, LinkPrefix)
        return AudioTokens(*prefix(*one_frame(e), side=side, generator=generator))


def _prepare(recipe: LinkRecipe, run_folder: Path) -> Job:
    recipe = resolved(recipe, ("encoder", "decoder"), run_folder / "weights.json")
    splits = open_embeddings(recipe.source, recipe.encoder, run_folder.parent)
    train = splits.train.first(recipe.pairs) if recipe.pairs else splits.train
    torch.manual_seed(recipe.fit.seed)
    encoder = EmbeddingFrames(load_embedding_encoder(recipe.encoder))
    bridge = load_bridge(recipe.bridge) if recipe.bridge else None
    _check_width(bridge, encoder.dim, recipe)
    captioner = link_captioner(recipe, encoder, bridge, train.captions)
    return lambda: fit_link(recipe, captioner, train, splits.validation, run_folder)


def link_captioner(
    recipe: LinkRecipe, encoder: EmbeddingFrames, bridge: Bridge | None, captions: list[str]
) -> TorchCaptioner:
    """The captioner of `recipe` before training, behind `bridge` or, without one, the recipe's
    untrained bridge; `captions` train the tokenizer of a new language model. New weights are
    drawn from torch's random numbers.

    Raises:
        ConfigError: the recipe names no language model.
    """
    settings: Any = bridge.config if bridge else recipe.untrained_bridge
    config = CaptionerConfig(
        prefix=LinkPrefixConfig(bridge=settings, hidden=recipe.hidden),
        decoder=recipe.language_model,
        guide=None,
        aligner=None,
        decoding=recipe.decoding,
    )
    decoder = open_language_model(recipe, recipe.language_model, captions)
    captioner = TorchCaptioner(encoder, decoder, config, recipe.name)
    if bridge:
        captioner.prefix.bridge.load_state_dict(bridge.state_dict(), strict=True)
    return captioner


def fit_link(
    recipe: LinkRecipe, captioner: TorchCaptioner, train: Pairs, chosen_on: Pairs, folder: Path
) -> dict[str, float]:
    """Trains `captioner` by the recipe's protocol on `train`; the scores on `chosen_on` of the best
    weights, which are in `folder`/best.

    Raises:
        TrainingError: see `earwitness.training.fit.fit`.
    """
    return fit(
        LinkTraining(captioner, recipe.protocol),
        PairItems(_one_side(train, recipe.protocol)),
        collate_pairs,
        {},
        recipe.fit,
        folder,
        validate=lambda trained: validation(trained, chosen_on),
        save=lambda trained, best: _save(trained, best, recipe),
        select=Selection("decode", "lowest"),
    )


def validation(model: nn.Module, pairs: Pairs, batch_size: int = 100) -> dict[str, float]:
    """`decode` on validation captions from the side that is trained on, which chooses the weights,
    and `decode_audio`, from the audio.

    So in the zero-shot protocol not even the choice of the weights uses audio.
    """
    assert isinstance(model, LinkTraining)
    items, sums = PairItems(pairs), {"decode": 0.0, "decode_audio": 0.0}
    device = model.captioner.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        for batch, count in validation_batches(items, collate_pairs, device, batch_size):
            share = count / len(items)
            sums["decode"] += float(model(batch)["decode"]) * share
            sums["decode_audio"] += float(model.audio_losses(batch)["decode"]) * share
    return sums


def _one_side(pairs: Pairs, protocol: str) -> Pairs:
    """Zero-shot training has no audio to look at: its place holds NaN."""
    if protocol == "supervised":
        return pairs
    return pairs._replace(audio=pairs.audio * float("nan"))


def _check_width(bridge: Bridge | None, dim: int, recipe: LinkRecipe) -> None:
    if bridge and bridge.config.dim != dim:
        raise ConfigError(
            f"{recipe.bridge}: a bridge for embeddings of {bridge.config.dim} numbers, "
            f"the encoder {recipe.encoder} gives {dim}"
        )


def _save(model: nn.Module, folder: Path, recipe: LinkRecipe) -> None:
    assert isinstance(model, LinkTraining)
    model.captioner.save(folder, recipe.fit.saved_dtype)
