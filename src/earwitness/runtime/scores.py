"""What the search adds to a language model's logits, in the order of transformers' `generate`."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from earwitness.caption import Decoding


def log_softmax(x: Float[np.ndarray, "R V"]) -> Float[np.ndarray, "R V"]:
    """Log-probabilities of each row."""
    shifted = x - x.max(axis=1, keepdims=True)
    total = np.exp(shifted).sum(axis=1, keepdims=True)
    shifted -= np.log(total)
    return shifted


@dataclass
class Scores:
    """Penalties, the Token Guide and forbidden words, for B clips of K rows each.

    `bias` is the guide's, times its strength; `content` is None if words may be repeated.
    """

    settings: Decoding
    bias: Float[np.ndarray, "B V"] | None
    content: Bool[np.ndarray, " V"] | None

    def keep(self, clips: Int[np.ndarray, " kept"]) -> None:
        """Drops all clips except `clips`."""
        if self.bias is not None:
            self.bias = self.bias[clips]

    def __call__(
        self, logits: Float[np.ndarray, "R V"], said: Int[np.ndarray, "R t"], normal: bool
    ) -> Float[np.ndarray, "R V"]:
        """Scores of the next token after the tokens `said`; log-probabilities if `normal`."""
        scores = logits
        penalized = self.settings.repetition_penalty != 1.0 or self.settings.no_repeat_ngram > 0
        if penalized:
            scores = log_softmax(scores) if normal else scores.copy()
            _penalize(scores, said, self.settings.repetition_penalty)
            _forbid_ngrams(scores, said, self.settings.no_repeat_ngram)
        if self.bias is not None:
            rows = len(scores) // len(self.bias)
            by_clip = scores.reshape(len(self.bias), rows, -1) + self.bias[:, None]
            scores = by_clip.reshape(scores.shape)
        # The guide normalizes in every search; with a bias added, one normalization does for both.
        if self.bias is not None or (normal and not penalized):
            scores = log_softmax(scores)
        elif scores is logits:
            scores = scores.copy()
        if self.content is not None and said.shape[1]:
            rows, places = np.nonzero(self.content[said])
            scores[rows, said[rows, places]] = -np.inf
        return scores


def _penalize(
    scores: Float[np.ndarray, "R V"], said: Int[np.ndarray, "R t"], penalty: float
) -> None:
    """Makes tokens that were said less likely (CTRL, arXiv 1909.05858)."""
    if penalty == 1.0 or not said.shape[1]:
        return
    found = np.take_along_axis(scores, said, axis=1)
    changed = np.where(found < 0, found * np.float32(penalty), found / np.float32(penalty))
    np.put_along_axis(scores, said, changed, axis=1)


def _forbid_ngrams(scores: Float[np.ndarray, "R V"], said: Int[np.ndarray, "R t"], n: int) -> None:
    """Forbids the tokens that would repeat a run of `n` tokens."""
    length = said.shape[1]
    if n == 0 or length + 1 < n:
        return
    last = said[:, length - n + 1 :]
    for start in range(length - n + 1):
        same = (said[:, start : start + n - 1] == last).all(axis=1)
        scores[same, said[same, start + n - 1]] = -np.inf


def warped(
    scores: Float[np.ndarray, "R V"], temperature: float, top_p: float
) -> Float[np.ndarray, "R V"]:
    """Scores to draw from: divided by the temperature; the least likely tokens, whose share is
    at most 1 - `top_p`, are left out.
    """
    scores = scores / np.float32(temperature)
    if top_p < 1.0:
        order = np.argsort(scores, axis=1, kind="stable")
        rising = np.take_along_axis(scores, order, axis=1)
        share = np.exp(log_softmax(rising)).cumsum(axis=1)
        out = share <= 1.0 - top_p
        out[:, -1] = False
        np.put_along_axis(scores, order, np.where(out, -np.inf, rising), axis=1)
    return scores
