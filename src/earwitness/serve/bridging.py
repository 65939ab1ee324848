"""What the bridge of a Diffusion-Link model does to one sound: before and after, for the page."""

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from earwitness.encoders import EmbeddingFrames
from earwitness.link import LinkPrefix
from earwitness.link.baselines import NoBridge, NoBridgeConfig
from earwitness.system.captioner import AudioTokens, Captioner


class Place(NamedTuple):
    """Where an embedding lies, as cosine distances (1 - cosine, 0 to 2).

    `nearest` to the nearest sentence, `centre` to the mean direction of all sentences.
    """

    nearest: float
    centre: float


@dataclass(frozen=True)
class BridgeView:
    """A stretch of a sound as the language model is told of it without the bridge, and with it.

    `own` is the median sentence: its distances to the other sentences and to their centre.
    """

    start: float
    end: float
    captions: tuple[str, str]
    scores: tuple[float, float]
    places: tuple[Place, Place]
    own: Place
    sentences: int


class Bridging:
    """Compares a model with itself without its bridge. Not made for a model that has none."""

    def __init__(self, captioner: Captioner, prefix: LinkPrefix, encoder: Any) -> None:
        self._captioner, self._prefix, self._encoder = captioner, prefix, encoder
        self._without = NoBridgeConfig(dim=encoder.dim).build()
        self._cloud: Tensor | None = None

    @classmethod
    def of(cls, captioner: Captioner) -> "Bridging | None":
        """For a Diffusion-Link model with a bridge; None for any other model."""
        prefix, frames = captioner.prefix, captioner.encoder
        if not isinstance(prefix, LinkPrefix) or not isinstance(frames, EmbeddingFrames):
            return None
        return (
            None if isinstance(prefix.bridge, NoBridge) else cls(captioner, prefix, frames.encoder)
        )

    @torch.inference_mode()
    def view(self, waveform: np.ndarray, start: float, end: float) -> BridgeView:
        """Both captions of a mono waveform at the model's rate, and where its embeddings lie."""
        frames = self._captioner.encode([waveform])
        e = frames.h[:, 0].float()
        embeddings = torch.cat([self._without(e), self._prefix.bridge(e)])
        z = self._prefix.projector(embeddings * self._prefix.scale)
        settings = self._captioner.config.decoding.model_copy(update={"n_best": 1})
        found = [
            self._captioner.generate(AudioTokens(z[i : i + 1], frames.mask), settings)[0][0]
            for i in (0, 1)
        ]
        cloud = self._text()
        without, bridged = places(embeddings, cloud)
        return BridgeView(
            start,
            end,
            (found[0].text, found[1].text),
            (float(np.exp(found[0].log_probability)), float(np.exp(found[1].log_probability))),
            (without, bridged),
            median_place(cloud),
            len(cloud),
        )

    def _text(self) -> Float[Tensor, "M C"]:
        """The embedded sentences, made at the first sound."""
        cloud = self._cloud
        if cloud is None:
            cloud = self._cloud = self._encoder.embed_text(list(sentences()))
        return cloud


def places(e: Float[Tensor, "B C"], cloud: Float[Tensor, "M C"]) -> list[Place]:
    """Where each of the unit vectors `e` lies with respect to the unit vectors `cloud`."""
    nearest = 1 - (e @ cloud.T).amax(1)
    centre = 1 - e @ normalize(cloud.mean(0), dim=0)
    return [Place(*pair) for pair in zip(nearest.tolist(), centre.tolist(), strict=True)]


def median_place(cloud: Float[Tensor, "M C"]) -> Place:
    """The medians over the cloud's own vectors; none is its own neighbour."""
    others = (cloud @ cloud.T).fill_diagonal_(-torch.inf)
    centre = 1 - cloud @ normalize(cloud.mean(0), dim=0)
    return Place(float((1 - others.amax(1)).median()), float(centre.median()))


@lru_cache(maxsize=1)
def sentences() -> tuple[str, ...]:
    """Plain captions of everyday sounds: the text cloud that distances are measured to."""
    text = resources.files("earwitness.serve").joinpath("sentences.txt").read_text("utf-8")
    return tuple(text.split("\n")[:-1])
