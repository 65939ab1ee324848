"""Stage `bridge`: any bridge over the modality gap, on cached embeddings of a frozen encoder."""

import copy
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from earwitness.link import (
    AnyBridgeConfig,
    DiffusionLink,
    DiffusionLinkConfig,
    save_bridge,
    simplest_start,
    start_time_sweep,
)
from earwitness.link.base import Bridge
from earwitness.models.hub import WeightsName, resolved
from earwitness.models.weights import write_json
from earwitness.training.contrastive import recall
from earwitness.training.embeddings import (
    EmbeddingSplits,
    PairItems,
    Pairs,
    collate_pairs,
    fresh_generator,
    open_embeddings,
)
from earwitness.training.fit import fit
from earwitness.training.recipe import Job, StageRecipe
from earwitness.training.settings import Selection
from earwitness.training.sources import Source


class BridgeRecipe(StageRecipe):
    """Settings of the stage."""

    stage: Literal["bridge"]
    encoder: WeightsName
    """an embedding encoder: the folder of a dual encoder or a CLAP, or a CLAP on the hub"""
    source: Source
    bridge: AnyBridgeConfig = DiffusionLinkConfig()
    choose_start: bool = True
    """Diffusion-Link: t* by paired cosine on the validation pairs, the earliest within one standard
    error of the best"""

    def prepare(self, folder: Path) -> Job:
        """Opens the embeddings; the run leaves the bridge in `folder`/best/bridge.

        A bridge with nothing to train only fits its statistics.
        """
        return _prepare(self, folder)


class BridgeTraining(nn.Module):
    """A bridge on batches of pairs."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__()
        self.bridge = bridge

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The bridge's own terms, whose sum is minimized."""
        generator = fresh_generator(batch["audio"].device)
        return self.bridge.training_loss(batch["audio"], batch["text"], generator)


def _prepare(recipe: BridgeRecipe, run_folder: Path) -> Job:
    recipe = resolved(recipe, ("encoder",), run_folder / "weights.json")
    splits = open_embeddings(recipe.source, recipe.encoder, run_folder.parent)
    torch.manual_seed(recipe.fit.seed)
    dim = splits.train.audio.shape[1]
    bridge = recipe.bridge.model_copy(update={"dim": dim}).build()
    bridge.fit_statistics(*map(torch.from_numpy, (splits.train.audio, splits.train.text)))
    if not bridge.trains:
        return lambda: _closed_form(bridge, splits, run_folder)
    return lambda: fit(
        BridgeTraining(bridge),
        PairItems(splits.train),
        collate_pairs,
        {},
        recipe.fit,
        run_folder,
        validate=lambda trained: _validate(trained, splits.validation, recipe),
        save=lambda trained, folder: _save(trained, folder, splits.validation, recipe),
        select=Selection("paired_cosine"),
    )


def score(bridge: Bridge, pairs: Pairs) -> dict[str, float]:
    """Mean cosine between a bridged sound and its captions, and retrieval after the bridge."""
    device = next(iter(bridge.state_dict().values()), torch.zeros(())).device
    with torch.no_grad():
        audio = bridge.eval()(torch.from_numpy(pairs.audio).to(device)).cpu()
    text = torch.from_numpy(pairs.text)
    found = recall(audio.numpy(), pairs.text, pairs.owner)
    return {"paired_cosine": float(cosine_similarity(audio[pairs.owner], text).mean())} | found


def _validate(model: nn.Module, pairs: Pairs, recipe: BridgeRecipe) -> dict[str, float]:
    assert isinstance(model, BridgeTraining)
    return score(_at_best_start(model.bridge, pairs, recipe), pairs)


def _at_best_start(bridge: Bridge, pairs: Pairs, recipe: BridgeRecipe) -> Bridge:
    """A copy of a Diffusion-Link with its start chosen on validation pairs; other bridges
    unchanged.

    Only one-step prediction is tried: it is the sampler of the paper's predecessor.
    """
    if not recipe.choose_start or not isinstance(bridge, DiffusionLink):
        return bridge
    audio, text = (side.to(bridge.alpha_bar.device) for side in pairs.tensors())
    best = simplest_start(start_time_sweep(bridge, audio, text, steps=(1,)))
    moved = copy.deepcopy(bridge)
    chosen = {"start_time": best.start_time, "steps": best.steps}
    moved.config = bridge.config.model_copy(update=chosen)
    return moved


def _save(model: nn.Module, folder: Path, pairs: Pairs, recipe: BridgeRecipe) -> None:
    assert isinstance(model, BridgeTraining)
    save_bridge(_at_best_start(model.bridge, pairs, recipe), folder / "bridge")


def _closed_form(bridge: Bridge, splits: EmbeddingSplits, run_folder: Path) -> dict[str, float]:
    save_bridge(bridge, run_folder / "best" / "bridge")
    scores: dict[str, Any] = score(bridge, splits.validation)
    write_json(run_folder / "scores.json", scores)
    return scores
