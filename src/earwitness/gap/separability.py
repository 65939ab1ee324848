"""Held-out linear separability: can a linear classifier tell sounds from captions?"""

import numpy as np
from jaxtyping import Float

from earwitness.errors import MissingDependencyError, pip_install
from earwitness.gap.clouds import PairedClouds, draw_clips
from earwitness.gap.kernels import sampled
from earwitness.statistics import Estimate

CAPTION_LIMIT = 2500
FOLDS = 5


def _one_caption_each(pairs: PairedClouds, seed: int) -> Float[np.ndarray, "N C"]:
    captions = np.bincount(pairs.owner)
    starts = np.cumsum(captions) - captions
    drawn = np.random.default_rng([seed, pairs.clips, 3]).integers(captions)
    return pairs.text[starts + drawn]


def _held_out_accuracy(
    audio: Float[np.ndarray, "N C"], text: Float[np.ndarray, "N C"], seed: int
) -> Float[np.ndarray, " N"]:
    """Per clip, the share of its two vectors classified correctly by a model fitted without it."""
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise MissingDependencyError(
            f"linear separability needs scikit-learn; install it with: {pip_install('plots')}"
        ) from error
    shuffled = np.random.default_rng([seed, len(audio), 4]).permutation(len(audio))
    accuracy = np.empty(len(audio))
    for fold in np.array_split(shuffled, min(FOLDS, len(audio))):
        rest = np.setdiff1d(shuffled, fold)
        points = np.concatenate([audio[rest], text[rest]]).astype(np.float64)
        labels = np.repeat([1, 0], len(rest))
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000, tol=1e-3))
        model.fit(points, labels)
        sounds = model.predict(audio[fold].astype(np.float64)) == 1
        captions = model.predict(text[fold].astype(np.float64)) == 0
        accuracy[fold] = (sounds.astype(np.float64) + captions) / 2.0
    return accuracy


def separability_quantities(pairs: PairedClouds, bootstrap: int, seed: int) -> dict[str, Estimate]:
    """Accuracy of logistic regression on standardized features, five folds, clips kept whole.

    One caption per clip, drawn by the seed, so that guessing is right half the time. Above 2500
    captions, a random subset of the clips is used. The interval resamples clips; the classifiers
    are not refitted.
    """
    part = sampled(pairs, CAPTION_LIMIT, seed)
    accuracy = _held_out_accuracy(part.audio, _one_caption_each(part, seed), seed)
    drawn = draw_clips(part.clips, bootstrap, seed).sums(accuracy[:, None])[:, 0] / part.clips
    return {"separability": Estimate(float(accuracy.mean()), drawn, part.clips)}
