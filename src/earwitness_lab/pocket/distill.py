"""Stage `distill`: the pocket audio encoder learns what YAMNet hears, and the classes of the mixed
sounds.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int, UInt8
from pydantic import AliasChoices, Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from earwitness.encoders import save_frame_encoder
from earwitness.encoders.cnn import CNN, CNNConfig
from earwitness.models.weights import load_weights, read_weights, write_weights
from earwitness.training.batches import validation_batches
from earwitness.training.fit import fit
from earwitness.training.pool import Pool, build_pool
from earwitness.training.recipe import Job, StageRecipe
from earwitness.training.settings import Selection
from earwitness_lab.pocket.scene_pool import (
    MAP_TOKENS,
    PATCHES,
    Scenes,
    TeacherRows,
    known_labels,
)
from earwitness_lab.pocket.teacher import MAP_SHAPE, N_EMBEDDING, N_SCORES

_WINDOW, _HOP = 6, 3
"""frames of 160 ms in a teacher patch of 0.96 s, and between patches"""
_HELDOUT_SEED = 1
"""of the validation scenes, the same in every stage"""


class DistillRecipe(StageRecipe):
    """Settings of the stage."""

    stage: Literal["distill"]
    data: Path
    encoder: CNNConfig = CNNConfig()
    init: Path | None = None
    """`best` folder of another distillation to start from; with `hints` its heads are trained anew,
    as they mean something else"""
    random_scenes: PositiveInt = 16000
    caption_scenes: NonNegativeInt = 0
    unlabeled_scenes: NonNegativeInt = Field(
        default=0, validation_alias=AliasChoices("unlabeled_scenes", "unlabelled_scenes")
    )
    """unlabeled recordings, each under a faint labeled sound: the closest there is to what the
    encoder will hear in use"""
    heldout_scenes: PositiveInt = 500
    unlabeled_share: NonNegativeFloat = Field(
        default=0.3, validation_alias=AliasChoices("unlabeled_share", "unlabelled_share")
    )
    scene_seed: int = 1
    hints: bool = False
    """the teacher's maps as a target too, the embedding above zero as the teacher's is, and scenes
    as they are: the teacher hears how loud a scene is, so its answers hold only at that level"""
    gain_db: NonNegativeFloat = 6.0
    """without `hints`, scenes are made louder or quieter by up to this much"""
    losses: dict[str, float] = {"scores": 1.0, "embedding": 10.0, "classes": 0.5, "maps": 5.0}

    def prepare(self, folder: Path) -> Job:
        """Builds the pools; the run leaves the encoder in `folder`/best/encoder."""
        return _prepare(self, folder)


class Distillation(nn.Module):
    """Encoder and its linear heads; losses `scores`, `embedding` and `classes`.

    With `hints` also `maps`: the encoder's own map of the same resolution tells the teacher's, as
    in FitNets (arXiv 1412.6550). What the teacher rectifies is compared through softplus: behind
    a rectifier of its own a fifth of the embedding's units died within an epoch.
    """

    statistics: Tensor

    def __init__(
        self,
        config: CNNConfig,
        n_classes: int,
        statistics: Tensor,
        gain_db: float,
        hints: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = CNN(config)
        self.scores = nn.Linear(config.dim, N_SCORES)
        self.embedding = nn.Linear(config.dim, N_EMBEDDING)
        self.classes = nn.Linear(config.dim, n_classes)
        self.maps = nn.Linear(config.channels[-1], MAP_SHAPE[-1]) if hints else None
        if self.maps is not None:
            # Most targets are zero; heads that start there do not disturb the encoder.
            for head, bias in ((self.scores, -5), (self.classes, -5), (self.embedding, -3)):
                nn.init.constant_(head.bias, bias)
            nn.init.constant_(self.maps.bias, -1)
        self.gain_db = gain_db
        self.register_buffer("statistics", statistics)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Cross-entropies summed over classes, squared error of the standardized embedding."""
        log_mel = batch["log_mel"].float()
        if self.training and self.maps is None:
            log_mel = self._augmented(log_mel)
        maps, h = self.encoder.encode_with_maps(log_mel)
        scores, embedding = self.by_patch(h)
        target = self.standardized(batch["embedding"])
        known = batch["known"].float()
        classes = nn.functional.binary_cross_entropy_with_logits(
            self.classes(h).float(),
            unpacked(batch["classes"], self.classes.out_features).float(),
            reduction="none",
        )
        hints = {} if self.maps is None else {"maps": self._map_error(maps, batch["maps"])}
        return hints | {
            "scores": nn.functional.binary_cross_entropy_with_logits(
                scores.float(), batch["scores"].float(), reduction="none"
            )
            .sum(-1)
            .mean(),
            "embedding": nn.functional.mse_loss(embedding.float(), target),
            "classes": (classes.sum(-1).mean(-1) * known).sum() / known.sum().clamp(min=1),
        }

    def heads(self) -> nn.ModuleDict:
        """What the encoder is trained through; not part of the finished encoder."""
        parts = {"scores": self.scores, "embedding": self.embedding, "classes": self.classes}
        return nn.ModuleDict(parts)

    def standardized(self, embedding: Float[Tensor, "B K E"]) -> Float[Tensor, "B K E"]:
        """The teacher's embedding with mean 0 and standard deviation 1 over the first pool."""
        return (embedding.float() - self.statistics[0]) / self.statistics[1]

    def by_patch(
        self, h: Float[Tensor, "B N D"]
    ) -> tuple[Float[Tensor, "B K scores"], Float[Tensor, "B K embedding"]]:
        """Logits and standardized embeddings on the teacher's patches."""
        pooled = _pooled(h)
        if self.maps is None:
            return self.scores(pooled), self.embedding(pooled)
        return self.scores(pooled), self.standardized(
            _pooled(nn.functional.softplus(self.embedding(h)))
        )

    def _map_error(
        self, maps: Float[Tensor, "B C N M"], target: Float[Tensor, "B 60 M 512"]
    ) -> Float[Tensor, ""]:
        """Squared error over the target's variance."""
        assert self.maps is not None
        told = nn.functional.softplus(
            self.maps(rearrange(maps[:, :, :MAP_TOKENS], "b c n m -> b n m c"))
        )
        target = target.float()
        return nn.functional.mse_loss(told.float(), target) / target.var().clamp(min=1e-6)

    def _augmented(self, log_mel: Float[Tensor, "B M F"]) -> Float[Tensor, "B M F"]:
        """A random gain for each clip; one band of up to 8 mels and two spans of up to 24 frames
        blanked.
        """
        clips, mels, frames = log_mel.shape
        gain = (torch.rand(clips, 1, 1, device=log_mel.device) * 2 - 1) * self.gain_db
        log_mel = log_mel + gain
        blank = log_mel.amin((1, 2), keepdim=True)
        for size, widest, dim in ((mels, 8, 1), (frames, 24, 2), (frames, 24, 2)):
            width = torch.randint(0, widest + 1, (clips, 1), device=log_mel.device)
            start = (torch.rand(clips, 1, device=log_mel.device) * (size - width)).long()
            place = torch.arange(size, device=log_mel.device)[None, :]
            hidden = (place >= start) & (place < start + width)
            log_mel = torch.where(hidden.unsqueeze(2 if dim == 1 else 1), blank, log_mel)
        return log_mel


def collate(rows: list[dict[str, np.ndarray]]) -> dict[str, Tensor]:
    """Rows of a pool as one batch."""
    return {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}


def unpacked(bits: UInt8[Tensor, "B N bytes"], count: int) -> UInt8[Tensor, "B N classes"]:
    """The first `count` bits of each row of bytes, highest bit first (numpy.packbits)."""
    shifts = torch.arange(7, -1, -1, device=bits.device).to(torch.uint8)
    return ((bits[..., None] >> shifts) & 1).flatten(-2)[..., :count]


def _prepare(recipe: DistillRecipe, run_folder: Path) -> Job:
    pools = _pools(recipe, run_folder.parent)
    labels = known_labels(recipe.data, run_folder.parent / "cache")
    statistics = _statistics(pools["random"])
    model = Distillation(recipe.encoder, len(labels), statistics, recipe.gain_db, recipe.hints)
    if recipe.init:
        state = read_weights(recipe.init / "encoder" / "model.safetensors")
        load_weights(model.encoder, state, str(recipe.init / "encoder"))
        if not recipe.hints:
            heads = recipe.init / "heads.safetensors"
            load_weights(model.heads(), read_weights(heads), str(heads))
    return lambda: fit(
        model,
        _Joined([pools[name] for name in ("random", "captions", "unlabeled") if name in pools]),
        collate,
        recipe.losses,
        recipe.fit,
        run_folder,
        validate=lambda trained: agreement(trained, pools["heldout"]),
        save=save,
        select=Selection("embedding_r2"),
    )


def _pools(recipe: DistillRecipe, runs: Path) -> dict[str, Pool]:
    cache, seed = runs / "cache", recipe.scene_seed
    labels = known_labels(recipe.data, cache)
    random = Scenes(recipe.data, cache, seed, unlabeled_share=recipe.unlabeled_share)
    # Another seed, so that no scene of the random mixes is repeated.
    unlabeled = Scenes(recipe.data, cache, seed + 1, unlabeled_share=1.0)
    wanted = {
        "random": (recipe.random_scenes, random),
        "captions": (recipe.caption_scenes, Scenes(recipe.data, cache, seed, "captions")),
        "unlabeled": (recipe.unlabeled_scenes, unlabeled),
        "heldout": (
            recipe.heldout_scenes,
            Scenes(recipe.data, cache, _HELDOUT_SEED, split="heldout"),
        ),
    }
    hinted = set(wanted) - {"heldout"} if recipe.hints else set()
    return {
        name: build_pool(
            runs / "pool" / (f"{name}-hints" if name in hinted else name),
            size,
            TeacherRows(scenes, labels, name in hinted),
        )
        for name, (size, scenes) in wanted.items()
        if size
    }


def save(model: nn.Module, folder: Path) -> None:
    """The encoder in half precision, ready for the next stage, and the heads beside it."""
    assert isinstance(model, Distillation)
    save_frame_encoder(model.encoder, folder / "encoder", torch.float16)
    write_weights(folder / "heads.safetensors", model.heads())


def agreement(model: nn.Module, pool: Pool, batch_size: int = 50) -> dict[str, float]:
    """How well the heads predict the teacher's answers and the true classes, on scenes of unheard
    recordings.

    `embedding_r2`: share of the variance of the teacher's embedding that is explained. `scores_r`:
    correlation of clip-level scores. `top5`: overlap of the five highest classes of a clip.
    `class_map`: mean average precision of the classes that sound in a clip.
    """
    from sklearn.metrics import average_precision_score

    assert isinstance(model, Distillation)
    error, student, teacher, tags, truth = [], [], [], [], []
    device = model.statistics.device
    for batch, _ in validation_batches(pool, collate, device, batch_size):
        classes = unpacked(batch["classes"], model.classes.out_features)
        h = model.encoder.encode(batch["log_mel"].float())
        scores, embedding = model.by_patch(h)
        target = model.standardized(batch["embedding"])
        error.append(((embedding - target) ** 2).mean((1, 2)) / (target**2).mean())
        student.append(scores.sigmoid().mean(1))
        teacher.append(batch["scores"].float().mean(1))
        tags.append(model.classes(h).sigmoid().amax(1))
        truth.append(classes.amax(1))
    labels = torch.cat(truth).cpu().numpy()
    present = labels.any(0)
    return {
        "embedding_r2": 1 - float(torch.cat(error).mean()),
        "scores_r": correlation(torch.cat(student), torch.cat(teacher)),
        "top5": top5_overlap(torch.cat(student), torch.cat(teacher)),
        "class_map": float(
            average_precision_score(labels[:, present], torch.cat(tags).cpu().numpy()[:, present])
        ),
    }


def correlation(a: Float[Tensor, "B S"], b: Float[Tensor, "B S"]) -> float:
    """Pearson correlation over all clips and classes."""
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def top5_overlap(a: Float[Tensor, "B S"], b: Float[Tensor, "B S"]) -> float:
    """Mean share of the five highest classes of `b` that are among the five highest of `a`."""
    first, second = top5(a), top5(b)
    return float((first[:, :, None] == second[:, None, :]).any(2).float().mean())


def top5(scores: Float[Tensor, "B S"]) -> Int[Tensor, "B 5"]:
    """The five highest classes of each row."""
    return scores.topk(5, dim=1).indices


def _pooled(h: Float[Tensor, "B N D"]) -> Float[Tensor, "B K D"]:
    """Means of frames over the teacher's patches."""
    pooled = nn.functional.avg_pool1d(rearrange(h, "b n d -> b d n"), _WINDOW, _HOP)
    return rearrange(pooled[..., :PATCHES], "b d k -> b k d")


def _statistics(pool: Pool) -> Float[Tensor, "2 embedding"]:
    """Mean and standard deviation of the teacher's embedding over the first 2,000 scenes."""
    values = torch.from_numpy(np.array(pool.arrays["embedding"][:2000], np.float32)).flatten(0, 1)
    return torch.stack([values.mean(0), values.std(0).clamp(min=0.05)])


class _Joined(torch.utils.data.Dataset[dict[str, np.ndarray]]):
    def __init__(self, pools: list[Pool]) -> None:
        self.pools = pools

    def __len__(self) -> int:
        return sum(map(len, self.pools))

    def __getitem__(self, key: tuple[int, int]) -> dict[str, np.ndarray]:
        index, epoch = key
        for pool in self.pools:
            if index < len(pool):
                return pool[(index, epoch)]
            index -= len(pool)
        raise IndexError(key)
