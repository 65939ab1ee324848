"""Stage `classes`: a head that names the sounds in an encoder's frames, by regression on real
recordings.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from earwitness.config import tomllib
from earwitness.data.captions import development_ids, read_audiocaps, read_clotho, without
from earwitness.encoders import load_frame_encoder
from earwitness.encoders.class_head import ClassHead
from earwitness.models.sound_classes import ClassHeadConfig
from earwitness.text import gist, normalize
from earwitness.training.pool import Pool, build_pool
from earwitness.training.recipe import Job, StageRecipe
from earwitness.training.settings import FitConfig
from earwitness_lab.pocket.real_pool import EarRows
from earwitness_lab.pocket.real_sound import RealSound, real_sounds
from earwitness_lab.pocket.single_sounds import PLAIN, plain_label, sentences

SHORTEST_FRAMES = 4
_LEAST_SPREAD = 1e-3


class ClassesRecipe(StageRecipe):
    """Settings of the stage."""

    stage: Literal["classes"]
    data: Path
    encoder: Path
    """folder of a frame encoder, which stays as it is"""
    crops: PositiveInt = 1
    """parts of each recording that are learned beside the whole, of 0.6 s and more"""
    plain: PositiveInt = 1400
    """synthetic sounds"""
    decay: NonNegativeFloat = 0.01
    """of the weights of standardized features; half of it times their squares is added"""
    steps: PositiveInt = 80
    """iterations of L-BFGS"""
    fit: FitConfig = FitConfig(seed=31)
    """of which only the seed counts: the regression has no epochs"""

    def prepare(self, folder: Path) -> Job:
        """The run leaves `classes.json` and `classes.safetensors` in `folder`/best/encoder."""
        return lambda: run(self, folder)


class Examples(NamedTuple):
    """Mean and maximum of frames, the class of each, its weight, and whether it is held out."""

    features: Float[np.ndarray, "N F"]
    labels: list[str]
    weights: Float[np.ndarray, " N"]
    heldout: Bool[np.ndarray, " N"]
    whole: Bool[np.ndarray, " N"]


def run(recipe: ClassesRecipe, run_folder: Path) -> dict[str, float]:
    """Fits the head and leaves it in `run_folder`/best/encoder; its scores on held-out recordings.

    `top1`, `top3`: of whole recordings. `crops`: top 1 of their parts and copies. `ece`: expected
    calibration error of the highest probability, at the temperature chosen on them.
    """
    dim = load_frame_encoder(recipe.encoder).dim
    examples = read_examples(recipe, run_folder.parent, dim)
    said, names = sentences(), audioset_names()
    labels = sorted(set(examples.labels))
    target = torch.tensor([labels.index(label) for label in examples.labels])
    linear = fitted(examples, target, len(labels), recipe)
    config = ClassHeadConfig(
        dim=dim,
        labels=tuple(labels),
        names=tuple(names[label] for label in labels),
        sentences=tuple(said[label] for label in labels),
        words=naming_words(recipe.data, [said[label] for label in labels]),
    )
    with torch.no_grad():
        logits = linear(torch.from_numpy(examples.features))
    whole = torch.from_numpy(examples.heldout & examples.whole)
    temperature = best_temperature(logits[whole], target[whole])
    head = ClassHead(config.model_copy(update={"temperature": temperature}))
    head.linear.load_state_dict(linear.state_dict())
    head.save(run_folder / "best" / "encoder")
    parts = torch.from_numpy(examples.heldout & ~examples.whole)
    top3 = logits[whole].topk(3, dim=1).indices == target[whole][:, None]
    return {
        "top1": _accuracy(logits[whole], target[whole]),
        "top3": float(top3.any(1).float().mean()),
        "crops": _accuracy(logits[parts], target[parts]),
        "temperature": temperature,
        "ece": calibration_error((logits[whole] / temperature).softmax(1), target[whole]),
    }


_VAGUE = frozenset(
    gist(
        "someone somebody something person people run make sound loud continuously repeatedly "
        "several time go goes off play steady background many other each pass device machine "
        "electronic up down open close small large quiet faint almost surface hit noise out into "
        "over use"
    )
)
"""stems that name no sound by themselves"""


def naming_words(data: Path, sentences: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    """For each class the words of human captions that share a stem with one of its sentences."""
    folder = data / "captions"
    rows = read_audiocaps(folder / "audiocaps_train.csv") + read_clotho(folder / "clotho_train.csv")
    rows = without(rows, development_ids(data))
    said = {word for row in rows for word in normalize(row.caption).split()}
    said |= {word for several in sentences for text in several for word in text.split()}
    by_stem: dict[str, set[str]] = defaultdict(set)
    for word in said:
        for stem in gist(word):
            by_stem[stem].add(word)
    stems = [frozenset(gist(" ".join(several))) - _VAGUE for several in sentences]
    return tuple(tuple(sorted(set().union(*(by_stem[s] for s in own)))) for own in stems)


def audioset_names() -> dict[str, str]:
    """Our class -> AudioSet's name."""
    file = resources.files("earwitness_lab.pocket").joinpath("audioset_names.toml")
    return tomllib.loads(file.read_text("utf-8"))


def read_examples(recipe: ClassesRecipe, runs: Path, dim: int) -> Examples:
    """The examples of all labeled recordings and of the synthetic sounds.

    A recording with many excerpts counts by the square root of their number, and so does a class.
    """
    code = hashlib.sha256((recipe.encoder / "model.safetensors").read_bytes()).hexdigest()[:12]
    sounds = real_sounds(recipe.data)
    maker = partial(EarRows, recipe.data, runs / "cache", recipe.encoder, code, dim)
    pools: dict[str, Pool] = {
        name: build_pool(runs / "pool" / f"ears-{name}-{size}-{code}", size, rows)
        for name, size, rows in (
            ("recordings", len(sounds), maker("recordings")),
            ("elsewhere", len(sounds), maker("elsewhere", recipe.fit.seed)),
            ("plain", recipe.plain, maker("plain", recipe.fit.seed)),
        )
    }
    known = sentences()
    plain = [
        RealSound(Path(), "", plain_label(PLAIN[n % len(PLAIN)]), "", f"plain {n}", False)
        for n in range(recipe.plain)
    ]
    rng = np.random.default_rng(recipe.fit.seed)
    rows: list[tuple[np.ndarray, RealSound, bool]] = []
    for kind, group in (("recordings", sounds), ("elsewhere", sounds), ("plain", plain)):
        arrays = pools[kind].arrays
        for number, sound in enumerate(group):
            count = int(arrays["count"][number])
            if sound.label not in known or count == 0:
                continue
            frames = np.array(arrays["frames"][number, :count], np.float32)
            rows.append((pooled(frames), sound, kind == "recordings"))
            parts = [part_of(frames, rng) for _ in range(recipe.crops)]
            rows += [(pooled(part), sound, False) for part in parts]
    heldout = np.array([sound.heldout for _, sound, _ in rows])
    return Examples(
        np.stack([features for features, _, _ in rows]),
        [sound.label for _, sound, _ in rows],
        balance([(sound.label, sound.recording) for _, sound, _ in rows], ~heldout),
        heldout,
        np.array([whole for _, _, whole in rows]),
    )


def pooled(frames: Float[np.ndarray, "N D"]) -> Float[np.ndarray, " F"]:
    """What `ClassHead` sees of frames: their mean and maximum."""
    return np.concatenate([frames.mean(0), frames.max(0)])


def part_of(frames: Float[np.ndarray, "N D"], rng: np.random.Generator) -> np.ndarray:
    """A random part, of log-uniform length."""
    longest = len(frames)
    wanted = np.exp(rng.uniform(np.log(SHORTEST_FRAMES), np.log(max(longest, SHORTEST_FRAMES))))
    size = min(longest, round(float(wanted)))
    start = int(rng.integers(longest - size + 1))
    return frames[start : start + size]


def balance(
    groups: list[tuple[str, str]], counted: Bool[np.ndarray, " N"]
) -> Float[np.ndarray, " N"]:
    """Weights by which a recording, and then a class, counts as the square root of its size."""
    sizes = Counter(groups)
    weights = np.array([sizes[group] ** -0.5 for group in groups])
    labels = np.array([label for label, _ in groups])
    for label in set(labels.tolist()):
        total = weights[(labels == label) & counted].sum()
        weights[labels == label] /= np.sqrt(total) if total > 0 else 1.0
    return weights


def fitted(
    examples: Examples, target: Int[Tensor, " N"], classes: int, recipe: ClassesRecipe
) -> nn.Linear:
    """The weighted, regularized logistic regression, on the raw features."""
    train = torch.from_numpy(~examples.heldout)
    features = torch.from_numpy(examples.features)
    mean, spread = features[train].mean(0), features[train].std(0) + _LEAST_SPREAD
    inputs, wanted = ((features - mean) / spread)[train], target[train]
    weights = torch.from_numpy(examples.weights).float()[train]
    weights = weights / weights.mean()
    linear = nn.Linear(inputs.shape[1], classes)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    optimizer = torch.optim.LBFGS(
        linear.parameters(), max_iter=recipe.steps, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        entropy = nn.functional.cross_entropy(linear(inputs), wanted, reduction="none")
        total = (entropy * weights).mean() + recipe.decay / 2 * linear.weight.square().sum()
        total.backward()
        return total

    optimizer.step(loss)
    with torch.no_grad():
        linear.weight.div_(spread)
        linear.bias.sub_(linear.weight @ mean)
    return linear


def best_temperature(logits: Float[Tensor, "N K"], target: Int[Tensor, " N"]) -> float:
    """The temperature at which held-out recordings are most probable (Guo et al., 2017)."""
    choices = np.exp(np.linspace(np.log(0.3), np.log(4.0), 80))
    losses = [float(nn.functional.cross_entropy(logits / t, target)) for t in choices]
    return float(choices[int(np.argmin(losses))])


def calibration_error(
    probabilities: Float[Tensor, "N K"], target: Int[Tensor, " N"], bins: int = 10
) -> float:
    """Expected calibration error: mean distance of accuracy and highest probability over bins."""
    highest, chosen = probabilities.max(1)
    right = (chosen == target).float()
    place = (highest * bins).long().clamp(max=bins - 1)
    error = 0.0
    for chosen_bin in place.unique().tolist():
        inside = place == chosen_bin
        gap = (right[inside].mean() - highest[inside].mean()).abs()
        error += float(inside.float().mean() * gap)
    return error


def _accuracy(logits: Float[Tensor, "N K"], target: Int[Tensor, " N"]) -> float:
    return float((logits.argmax(1) == target).float().mean())
