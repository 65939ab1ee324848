"""What the bridge of a Diffusion-Link model does to one sound: before and after, for the page."""

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from earwitness.caption import AudioTextEncoder
from earwitness.captioning.captioner import Captioner, Explains


class Place(NamedTuple):
    """Where an embedding lies, as cosine distances (1 - cosine, 0 to 2).

    `nearest` to the nearest sentence, `center` to the mean direction of all sentences.
    """

    nearest: float
    center: float


@dataclass(frozen=True)
class BridgeView:
    """A stretch of a sound as the language model gets it without the bridge, and with it.

    `own` is the median sentence: its distances to the other sentences and to their center.
    """

    start: float
    end: float
    captions: tuple[str, str]
    scores: tuple[float, float]
    places: tuple[Place, Place]
    own: Place
    sentences: int


class Bridging:
    """Compares a model with itself without its bridge."""

    def __init__(self, captioner: Explains, encoder: AudioTextEncoder) -> None:
        self._captioner, self._encoder = captioner, encoder
        self._cloud: Float[np.ndarray, "M C"] | None = None

    @classmethod
    def of(cls, captioner: Captioner) -> "Bridging | None":
        """For a Diffusion-Link model with a bridge; None for any other model."""
        if not isinstance(captioner, Explains) or not captioner.has_bridge:
            return None
        encoder = captioner.audio_text
        return None if encoder is None else cls(captioner, encoder)

    def view(self, waveform: Float[np.ndarray, " T"], start: float, end: float) -> BridgeView:
        """Both captions of a mono waveform at the model's rate, and where its embeddings lie."""
        effect = self._captioner.bridge_effect(waveform)
        assert effect is not None, "only made for a model with a bridge"
        cloud = self._text()
        without, bridged = places(effect.embeddings, cloud)
        first, second = effect.captions
        return BridgeView(
            start,
            end,
            (first.text, second.text),
            (first.score, second.score),
            (without, bridged),
            median_place(cloud),
            len(cloud),
        )

    def _text(self) -> Float[np.ndarray, "M C"]:
        """The embedded sentences, computed for the first sound."""
        cloud = self._cloud
        if cloud is None:
            cloud = self._cloud = self._encoder.embed_text(sentences())
        return cloud


def places(e: Float[np.ndarray, "B C"], cloud: Float[np.ndarray, "M C"]) -> list[Place]:
    """Where each of the unit vectors `e` lies with respect to the unit vectors `cloud`."""
    nearest = 1 - (e @ cloud.T).max(1)
    center = 1 - e @ _center(cloud)
    return [Place(*pair) for pair in zip(nearest.tolist(), center.tolist(), strict=True)]


def median_place(cloud: Float[np.ndarray, "M C"]) -> Place:
    """The medians over the cloud's own vectors; none is its own neighbor."""
    others = cloud @ cloud.T
    np.fill_diagonal(others, -np.inf)
    center = 1 - cloud @ _center(cloud)
    return Place(float(np.median(1 - others.max(1))), float(np.median(center)))


def _center(cloud: Float[np.ndarray, "M C"]) -> Float[np.ndarray, " C"]:
    mean = cloud.mean(0)
    return mean / np.linalg.norm(mean)


@lru_cache(maxsize=1)
def sentences() -> tuple[str, ...]:
    """Plain captions of everyday sounds: the text cloud that distances are measured to."""
    text = resources.files("earwitness.serve").joinpath("sentences.txt").read_text("utf-8")
    return tuple(text.split("\n")[:-1])
