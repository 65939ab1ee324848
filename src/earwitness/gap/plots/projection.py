"""Two-dimensional views of paired clouds: PCA, or UMAP with its extra."""

from dataclasses import dataclass
from importlib import import_module

import numpy as np
from jaxtyping import Float, Int

from earwitness.errors import ConfigError, DataError, MissingDependencyError, pip_install

METHODS = ("pca", "umap")
_UMAP_LIMIT = 5000


@dataclass(frozen=True)
class Projection:
    """Some pairs in the plane. Row i of every cloud is the same clip, `clips[i]`.

    `captions[i]` is the text row shown for it, the clip's first; `cosine` and `bridged_cosine` are
    the cosines of that caption with the sound and with the bridged sound.
    """

    method: str
    axes: tuple[str, str]
    clips: Int[np.ndarray, " n"]
    captions: Int[np.ndarray, " n"]
    audio: Float[np.ndarray, "n 2"]
    text: Float[np.ndarray, "n 2"]
    cosine: Float[np.ndarray, " n"]
    bridged: Float[np.ndarray, "n 2"] | None = None
    bridged_cosine: Float[np.ndarray, " n"] | None = None

    def clouds(self) -> dict[str, Float[np.ndarray, "n 2"]]:
        """The clouds by name: audio, text, and bridged if there is one."""
        found = {"audio": self.audio, "text": self.text}
        return found if self.bridged is None else {**found, "bridged": self.bridged}


def unit(vectors: Float[np.ndarray, "n C"]) -> Float[np.ndarray, "n C"]:
    """Every row at unit length, in float64. Raises DataError for a row of length 0."""
    wide = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    if not (np.isfinite(lengths).all() and lengths.all()):
        row = int(np.argmin(np.where(np.isfinite(lengths), lengths, -1.0)))
        raise DataError(f"row {row} is zero or not finite; expected vectors with a direction")
    return wide / lengths


def first_captions(owner: Int[np.ndarray, " M"] | None, clips: int) -> Int[np.ndarray, " N"]:
    """The row of each clip's first caption. Raises DataError if a clip has none."""
    if owner is None:
        return np.arange(clips)
    owners, rows = np.unique(owner, return_index=True)
    if not np.array_equal(owners, np.arange(clips)):
        raise DataError(f"owner names {len(owners)} clips; expected all from 0 to {clips - 1}")
    return rows


def project(
    audio: Float[np.ndarray, "N C"],
    text: Float[np.ndarray, "M C"],
    bridged: Float[np.ndarray, "N C"] | None = None,
    *,
    owner: Int[np.ndarray, " M"] | None = None,
    method: str = "pca",
    shown: int = 300,
    seed: int = 0,
) -> Projection:
    """At most `shown` pairs, drawn by `seed`, in two dimensions fitted to all clouds together.

    Vectors are first scaled to unit length. PCA is fitted to every vector given, UMAP (cosine) to
    at most 5000 clips. Raises MissingDependencyError for UMAP without its package.
    """
    if method not in METHODS:
        raise ConfigError(f"unknown projection {method!r}; expected {' and '.join(METHODS)}")
    if owner is None and len(audio) != len(text):
        raise DataError(
            f"{len(text)} captions for {len(audio)} sounds; expected equal numbers, or an owner"
        )
    firsts = first_captions(owner, len(audio))
    order = np.random.default_rng(seed).permutation(len(audio))
    clips = np.sort(order[:shown])
    sources = [audio, text[firsts]] + ([] if bridged is None else [bridged])
    if method == "pca":
        planes, axes = _pca(sources, clips)
    else:
        fitted = np.union1d(order[:_UMAP_LIMIT], clips)
        planes, axes = _umap(sources, fitted, np.searchsorted(fitted, clips), seed)
    flat_bridged, bridged_cosine = None, None
    if bridged is not None:
        flat_bridged = planes[2]
        bridged_cosine = _paired_cosine(bridged[clips], text[firsts[clips]])
    return Projection(
        method=method,
        axes=axes,
        clips=clips,
        captions=firsts[clips],
        audio=planes[0],
        text=planes[1],
        cosine=_paired_cosine(audio[clips], text[firsts[clips]]),
        bridged=flat_bridged,
        bridged_cosine=bridged_cosine,
    )


def _paired_cosine(
    x: Float[np.ndarray, "n C"], y: Float[np.ndarray, "n C"]
) -> Float[np.ndarray, " n"]:
    return np.sum(unit(x) * unit(y), axis=1)


def _pca(
    sources: list[np.ndarray], clips: Int[np.ndarray, " n"]
) -> tuple[list[np.ndarray], tuple[str, str]]:
    clouds = [unit(source) for source in sources]
    count = sum(len(cloud) for cloud in clouds)
    mean = np.sum([cloud.sum(axis=0) for cloud in clouds], axis=0) / count
    covariance = np.sum([(c - mean).T @ (c - mean) for c in clouds], axis=0) / count
    values, vectors = np.linalg.eigh(covariance)
    plane = vectors[:, ::-1][:, :2]
    if plane.shape[1] < 2:
        raise DataError("expected vectors of at least two numbers, got one")
    # An eigenvector's sign is arbitrary; make the largest entry positive for reproducible plots.
    plane = plane * np.sign(plane[np.abs(plane).argmax(axis=0), [0, 1]])
    total = max(float(values.sum()), np.finfo(float).tiny)
    axes = (
        f"principal component 1 ({max(values[-1], 0.0) / total:.0%} of the variance)",
        f"principal component 2 ({max(values[-2], 0.0) / total:.0%} of the variance)",
    )
    return [(cloud[clips] - mean) @ plane for cloud in clouds], axes


def _umap(
    sources: list[np.ndarray], fitted: np.ndarray, shown: np.ndarray, seed: int
) -> tuple[list[np.ndarray], tuple[str, str]]:
    try:
        model_class = import_module("umap").UMAP
    except ImportError as error:
        raise MissingDependencyError(
            "the UMAP projection needs umap-learn; install it with: "
            f"{pip_install('umap')}, or choose pca"
        ) from error
    points = np.concatenate([unit(source[fitted]) for source in sources])
    model = model_class(n_components=2, metric="cosine", random_state=seed, n_jobs=1)
    flat = np.asarray(model.fit_transform(points), np.float64)
    return [part[shown] for part in np.split(flat, len(sources))], ("UMAP 1", "UMAP 2")
