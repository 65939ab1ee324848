"""Paired clouds of embeddings, checked once: N sounds, M captions, and each caption's owner."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from earwitness.errors import DataError
from earwitness.statistics import Resamples

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass(frozen=True)
class PairedClouds:
    """N sounds and their M >= N captions, sorted by owner.

    Distances use the vectors `audio` and `text`; `unit_audio` and `unit_text` are the same vectors
    at unit length, and with `normalize` the same arrays. `share` gives each clip a total weight of
    one.
    """

    audio: Float[np.ndarray, "N C"]
    text: Float[np.ndarray, "M C"]
    unit_audio: Float[np.ndarray, "N C"]
    unit_text: Float[np.ndarray, "M C"]
    owner: Int[np.ndarray, " M"]
    share: Float[np.ndarray, " M"]
    order: Int[np.ndarray, " M"]

    @property
    def clips(self) -> int:
        """The number of sounds, N."""
        return len(self.audio)

    @property
    def captions(self) -> int:
        """The number of captions, M."""
        return len(self.text)

    def mean_per_clip(self, values: Float[np.ndarray, "M ..."]) -> Float[np.ndarray, "N ..."]:
        """The mean over each clip's captions of one value (or row) per caption."""
        if self.captions == self.clips:
            return values
        starts = np.searchsorted(self.owner, np.arange(self.clips))
        share = self.share.astype(values.dtype).reshape(-1, *[1] * (values.ndim - 1))
        return np.add.reduceat(values * share, starts, axis=0)

    def subset(self, clips: Int[np.ndarray, " n"]) -> "PairedClouds":
        """The pairs of some clips, renumbered in the order given."""
        number = np.full(self.clips, -1)
        number[clips] = np.arange(len(clips))
        kept = np.flatnonzero(number[self.owner] >= 0)
        kept = kept[np.argsort(number[self.owner[kept]], kind="stable")]
        return replace(
            self,
            audio=self.audio[clips],
            text=self.text[kept],
            unit_audio=self.unit_audio[clips],
            unit_text=self.unit_text[kept],
            owner=number[self.owner[kept]],
            share=self.share[kept],
            order=self.order[kept],
        )

    def with_audio(self, audio: "ArrayLike", *, name: str, normalize: bool) -> "PairedClouds":
        """The same captions with another cloud of equally many sounds."""
        vectors = checked_vectors(audio, name)
        if vectors.shape != self.audio.shape:
            raise DataError(
                f"{name} has the shape {vectors.shape}; expected that of audio, {self.audio.shape}"
            )
        unit = unit_rows(vectors, name)
        return replace(self, audio=unit if normalize else vectors, unit_audio=unit)


def draw_clips(clips: int, resamples: int, seed: int) -> Resamples:
    """The resamples shared by all quantities of `clips` clips; each has at least two clips."""
    return Resamples.draw(clips, resamples, [seed, clips], pairs=True)


def checked_vectors(values: "ArrayLike", name: str) -> Float[np.ndarray, "N C"]:
    """The array as a finite two-dimensional float32 array. Raises DataError."""
    array = np.asarray(values)
    if array.ndim != 2 or array.shape[0] < 2 or array.shape[1] < 1:
        raise DataError(f"{name} has the shape {array.shape}; expected [N, C] with N >= 2")
    if array.dtype.kind not in "fiu":
        raise DataError(f"{name} holds {array.dtype} values; expected real numbers")
    array = np.ascontiguousarray(array, dtype=np.float32)
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(bad):
        raise DataError(
            f"{name} holds a number that is not finite in row {bad[0]} ({len(bad)} such rows); "
            "expected finite numbers of single precision"
        )
    return array


def unit_rows(vectors: Float[np.ndarray, "N C"], name: str) -> Float[np.ndarray, "N C"]:
    """Every row divided by its length. Raises DataError for a row of zeros."""
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    if not largest.all():
        row = int(np.argmin(largest))
        raise DataError(f"{name} is all zeros in row {row}; a zero vector has no cosine")
    scaled = vectors / largest
    return scaled / np.linalg.norm(scaled, axis=1, keepdims=True)


def _checked_owner(owner: "ArrayLike | None", clips: int, captions: int) -> Int[np.ndarray, " M"]:
    if owner is None:
        if captions != clips:
            raise DataError(
                f"{captions} captions for {clips} sounds; expected as many captions as sounds, "
                "or an owner array that gives each caption the row of its sound"
            )
        return np.arange(clips)
    index = np.asarray(owner)
    if index.dtype.kind not in "iu" or index.shape != (captions,):
        raise DataError(
            f"owner has dtype {index.dtype} and shape {index.shape}; expected one integer for each "
            f"of the {captions} captions"
        )
    if index.min() < 0 or index.max() >= clips:
        raise DataError(
            f"owner runs from {index.min()} to {index.max()}; expected 0 to {clips - 1}"
        )
    silent = np.flatnonzero(np.bincount(index, minlength=clips) == 0)
    if len(silent):
        raise DataError(
            f"sound {silent[0]} has no caption ({len(silent)} such sounds); "
            "expected at least one caption for every sound"
        )
    return index.astype(np.int64)


def make_pairs(
    audio: "ArrayLike", text: "ArrayLike", owner: "ArrayLike | None", *, normalize: bool
) -> PairedClouds:
    """Checked pairs of `audio` [N, C] and `text` [M, C]; caption m belongs to clip `owner[m]`."""
    x, y = checked_vectors(audio, "audio"), checked_vectors(text, "text")
    if x.shape[1] != y.shape[1]:
        raise DataError(
            f"audio has {x.shape[1]} numbers per vector but text has {y.shape[1]}; "
            "expected equal widths"
        )
    index = _checked_owner(owner, len(x), len(y))
    order = np.argsort(index, kind="stable")
    y, index = y[order], index[order]
    unit_x, unit_y = unit_rows(x, "audio"), unit_rows(y, "text")
    return PairedClouds(
        audio=unit_x if normalize else x,
        text=unit_y if normalize else y,
        unit_audio=unit_x,
        unit_text=unit_y,
        owner=index,
        share=1.0 / np.bincount(index)[index],
        order=order,
    )
