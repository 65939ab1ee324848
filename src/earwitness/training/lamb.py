"""Stage `lamb`: the LAMB system on scenes that are mixed along human captions, or on clips of a manifest."""

import hashlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from earwitness.captioner import Batch, Captioner, CaptionerConfig, load_decoder
from earwitness.config import Strict
from earwitness.data.captions import normalize
from earwitness.data.scenes import SceneSet
from earwitness.data.soundbank import SoundBank
from earwitness.encoders import load_frame_encoder
from earwitness.encoders.base import Frames
from earwitness.training.fit import FitConfig, fit
from earwitness.training.pool import Pool, build_pool
from earwitness.training.scene_pool import FrameRows, Scenes, scene_set

LAMB_LOSSES = {"decode": 1.0, "guide": 1.0, "cs_global": 1.0, "cs_token": 1.0, "infonce": 1.0}
"""lambda and alpha of the paper are unknown; 1 each"""


class LambRecipe(Strict):
    """Settings of the stage."""

    stage: Literal["lamb"]
    data: Path
    encoder: Path
    """folder of a frame encoder"""
    decoder: Path
    """folder of a causal language model"""
    name: str = "lamb"
    scenes: PositiveInt = 30000
    heldout_scenes: NonNegativeInt = 500
    scene_seed: int = 2
    model: CaptionerConfig = CaptionerConfig()
    losses: dict[str, float] = LAMB_LOSSES
    frame_dropout: float = 0.1
    """chance that a frame of the encoder is hidden in training"""
    blind: bool = False
    """hides the audio: the baseline that only knows how captions sound"""
    fit: FitConfig


class LambTraining(nn.Module):
    """A Captioner on batches of cached frames."""

    def __init__(self, captioner: Captioner, frame_dropout: float, blind: bool) -> None:
        super().__init__()
        self.captioner, self.frame_dropout, self.blind = captioner, frame_dropout, blind

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The losses of `Captioner.forward`."""
        h = batch["frames"].float()
        mask = torch.ones(h.shape[:2], dtype=torch.bool, device=h.device)
        if self.training and self.frame_dropout:
            mask = torch.rand(h.shape[:2], device=h.device) >= self.frame_dropout
        h = h * mask[..., None]
        everywhere = torch.ones_like(mask)
        if self.blind:
            h = torch.zeros_like(h)
        return self.captioner(Batch(Frames(h, everywhere), batch["texts"], batch["caption"]))


def run(recipe: LambRecipe, run_folder: Path) -> dict[str, float]:
    """Prepares frames, trains, and leaves a model folder in `run_folder`/best; its scores."""
    train, heldout = _pools(recipe, run_folder.parent)
    texts = {
        name: _captions(recipe, run_folder.parent, name) for name in ("train", "val")
    }
    torch.manual_seed(recipe.fit.seed)
    captioner = Captioner(
        load_frame_encoder(recipe.encoder),
        load_decoder(recipe.decoder, recipe.model.decoder),
        recipe.model,
        recipe.name,
    )
    model = LambTraining(captioner, recipe.frame_dropout, recipe.blind)
    return fit(
        model,
        train,
        lambda rows: collate(rows, texts["train"]),
        recipe.losses,
        recipe.fit,
        run_folder,
        validate=lambda trained: validation(trained, heldout, texts["val"]),
        save=lambda trained, folder: trained.captioner.save(folder, torch.float16),
        select="-decode",
    )


def validation(
    model: nn.Module, pool: Pool, texts: list[str], batch_size: int = 50
) -> dict[str, float]:
    """Mean losses on scenes of unheard recordings along captions of the validation files."""
    sums: dict[str, float] = {}
    batches = range(0, len(pool) - len(pool) % batch_size, batch_size)
    for start in batches:
        rows = [pool[(i, 0)] for i in range(start, start + batch_size)]
        for name, loss in model(collate(rows, texts)).items():
            sums[name] = sums.get(name, 0.0) + float(loss) / len(batches)
    return sums


def collate(rows: list[dict[str, np.ndarray]], texts: list[str]) -> dict[str, Any]:
    """Rows of a frame pool as one batch, with their captions."""
    caption = np.stack([row["caption"] for row in rows])
    return {
        "frames": torch.from_numpy(np.stack([row["frames"] for row in rows])),
        "caption": torch.from_numpy(caption),
        "texts": [texts[i] for i in caption],
    }


def _pools(recipe: LambRecipe, runs: Path) -> tuple[Pool, Pool]:
    cache, seed = runs / "cache", recipe.scene_seed
    weights = (recipe.encoder / "model.safetensors").read_bytes()
    code = hashlib.sha256(weights).hexdigest()[:12]
    dim = load_frame_encoder(recipe.encoder).dim

    def pool(name: str, size: int, scenes: Scenes) -> Pool:
        maker = FrameRows(scenes, recipe.encoder.resolve(), code, dim)
        return build_pool(runs / "pool" / f"frames-{name}-{size}-{code}", size, maker)

    return (
        pool("train", recipe.scenes, Scenes(recipe.data, cache, seed, "captions")),
        pool(
            "heldout",
            recipe.heldout_scenes,
            Scenes(recipe.data, cache, seed, "captions", "heldout", "val"),
        ),
    )


def _captions(recipe: LambRecipe, runs: Path, captions: Literal["train", "val"]) -> list[str]:
    split = "train" if captions == "train" else "heldout"
    bank = SoundBank.load(recipe.data / "train_audio", split=split, cache=runs / "cache")
    scenes: SceneSet = scene_set(recipe.data, captions, bank, recipe.scene_seed)
    return [normalize(scenes.caption(i)) for i in range(len(scenes))]
