"""Beam search and sampling in numpy, with the results of transformers' `generate`."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from earwitness.caption import Decoding
from earwitness.runtime.decoder import Cache, LanguageModel
from earwitness.runtime.scores import Scores, log_softmax, warped

_NEVER = np.float32(-1e9)


class Found(NamedTuple):
    """Tokens of a caption, without the end token, and their mean log-probability with it."""

    tokens: list[int]
    log_probability: float


def search(
    model: LanguageModel,
    z: list[Float[np.ndarray, "_ E"]],
    scores: Scores,
    settings: Decoding,
    end: int,
) -> list[list[Found]]:
    """The `n_best` captions of each clip's audio tokens `z`, best first; `end` closes a caption.

    A caption depends on no other clip of the call: draws have a generator for each clip.
    """
    logits, cache = model.start(z)
    if settings.sample:
        return _walk(model, logits, cache, scores, settings, end)
    beams = max(settings.beam_size, settings.n_best)
    if beams == 1:
        return _walk(model, logits, cache, scores, settings, end)
    return _Beams(len(z), beams, settings, end).run(model, logits, cache, scores)


class _Beams:
    """Running and finished captions of the clips that are still searched.

    The rules are those of transformers 5 (`_beam_search`, early_stopping False): of the 2 K best
    continuations, those among the first K that end are finished captions, and the K best others
    run on; a clip is done when its K finished captions cannot be beaten by its best running one at
    its current length. What is left of a clip's search cannot change its captions, so it is dropped
    from the batch.
    """

    def __init__(self, clips: int, beams: int, settings: Decoding, end: int) -> None:
        self.beams, self.settings, self.end = beams, settings, end
        longest = settings.max_new_tokens
        self.place = np.arange(clips)
        self.said = np.zeros((clips, beams, 0), np.int64)
        self.score = np.full((clips, beams), _NEVER)
        self.score[:, 0] = 0.0
        self.done_said = np.full((clips, beams, longest), end, np.int64)
        self.done_merit = np.full((clips, beams), _NEVER)
        self.done_score = np.zeros((clips, beams), np.float32)
        self.done_length = np.zeros((clips, beams), np.int64)
        self.is_done = np.zeros((clips, beams), bool)
        self.results: list[list[Found]] = [[] for _ in range(clips)]

    def run(
        self, model: LanguageModel, logits: Float[np.ndarray, "B V"], cache: Cache, scores: Scores
    ) -> list[list[Found]]:
        """The captions of all clips."""
        logits = np.repeat(logits, self.beams, axis=0)
        for step in range(self.settings.max_new_tokens):
            said = self.said.reshape(len(logits), step)
            token, beam = self._advance(scores(logits, said, normal=True), step)
            open_clips = self._still_open(step)
            if not len(open_clips):
                break
            parents = beam + np.arange(len(beam))[:, None] * self.beams
            if len(open_clips) < len(beam):
                token, parents = token[open_clips], parents[open_clips]
                self._keep(open_clips)
                cache.keep(open_clips)
                scores.keep(open_clips)
            logits = model.step(cache, token.ravel(), parents.ravel())
        self._store(np.arange(len(self.place)))
        return self.results

    def _advance(
        self, log_probabilities: Float[np.ndarray, "R V"], step: int
    ) -> tuple[Int[np.ndarray, "B K"], Int[np.ndarray, "B K"]]:
        """Each running caption's new token, and the beam that it extends."""
        clips, width = len(self.place), log_probabilities.shape[1]
        total = log_probabilities.reshape(clips, self.beams, width) + self.score[:, :, None]
        value, choice = _largest(total.reshape(clips, -1), 2 * self.beams)
        beam, token = choice // width, choice % width
        said = np.take_along_axis(self.said, beam[:, :, None], axis=1)
        said = np.concatenate([said, token[:, :, None]], axis=2)
        ends = (token == self.end) | (step + 1 == self.settings.max_new_tokens)
        running = value + np.where(ends, _NEVER, np.float32(0))
        self._finish(value, said, ends, step)
        best = np.argsort(-running, axis=1, kind="stable")[:, : self.beams]
        self.score = np.take_along_axis(running, best, axis=1)
        self.said = np.take_along_axis(said, best[:, :, None], axis=1)
        return np.take_along_axis(token, best, axis=1), np.take_along_axis(beam, best, axis=1)

    def _finish(
        self,
        value: Float[np.ndarray, "B J"],
        said: Int[np.ndarray, "B J t"],
        ends: Bool[np.ndarray, "B J"],
        step: int,
    ) -> None:
        """Adds captions that end now to the K best finished ones."""
        width: int = value.shape[1]
        ends = np.logical_and(ends, np.arange(width) < self.beams)
        if not ends.any():
            return
        merit = value / np.float32((step + 1) ** self.settings.length_penalty)
        merit = merit + np.where(ends, np.float32(0), _NEVER)
        merits = np.concatenate([self.done_merit, merit], axis=1)
        best = np.argsort(-merits, axis=1, kind="stable")[:, : self.beams]
        self.done_merit = np.take_along_axis(merits, best, axis=1)
        padded = np.full((*said.shape[:2], self.done_said.shape[2]), self.end, np.int64)
        padded[:, :, : step + 1] = said
        several = np.concatenate([self.done_said, padded], axis=1)
        self.done_said = np.take_along_axis(several, best[:, :, None], axis=1)
        lengths = np.full(value.shape, step + 1)
        for name, new in (("score", value), ("length", lengths)):
            both = np.concatenate([getattr(self, f"done_{name}"), new], axis=1)
            setattr(self, f"done_{name}", np.take_along_axis(both, best, axis=1))
        self.is_done = np.take_along_axis(
            np.concatenate([self.is_done, ends], axis=1), best, axis=1
        )

    def _still_open(self, step: int) -> Int[np.ndarray, " open"]:
        """Clips whose best running caption could still beat their worst finished one."""
        if step + 1 == self.settings.max_new_tokens:
            return np.zeros(0, np.int64)
        best = self.score[:, 0] / np.float32((step + 1) ** self.settings.length_penalty)
        worst = np.where(self.is_done, self.done_merit.min(axis=1, keepdims=True), _NEVER)
        return np.flatnonzero((best[:, None] > worst).any(axis=1))

    def _keep(self, clips: Int[np.ndarray, " kept"]) -> None:
        gone = np.setdiff1d(np.arange(len(self.place)), clips)
        self._store(gone)
        names = ("place", "said", "score", "done_said", "done_merit", "done_score")
        for name in (*names, "done_length", "is_done"):
            setattr(self, name, getattr(self, name)[clips])

    def _store(self, clips: Int[np.ndarray, " stored"]) -> None:
        """Puts the finished captions of `clips` in their place among the results."""
        for clip in clips:
            for rank in range(self.settings.n_best):
                length = max(int(self.done_length[clip, rank]), 1)
                tokens = self.done_said[clip, rank, :length].tolist()
                mean = float(self.done_score[clip, rank]) / length
                text = tokens[:-1] if tokens[-1] == self.end else tokens
                self.results[self.place[clip]].append(Found(text, mean))


def _walk(
    model: LanguageModel,
    logits: Float[np.ndarray, "B V"],
    cache: Cache,
    scores: Scores,
    settings: Decoding,
    end: int,
) -> list[list[Found]]:
    """Sampled captions, `n_best` for each clip, or the greedy one."""
    rows = settings.n_best
    place = np.arange(len(logits))
    dice = [np.random.default_rng(settings.seed) for _ in place]
    said = np.full((len(place), rows, settings.max_new_tokens), end, np.int64)
    total, length = np.zeros((len(place), rows)), np.zeros((len(place), rows), np.int64)
    logits = np.repeat(logits, rows, axis=0)
    for step in range(settings.max_new_tokens):
        so_far = said[place, :, :step].reshape(len(logits), step)
        found = scores(logits, so_far, normal=False)
        if settings.sample:
            found = warped(found, settings.temperature, settings.top_p)
        found = log_softmax(found)
        token = _drawn(found, dice, rows) if settings.sample else found.argmax(axis=1)
        gain = np.take_along_axis(found, token[:, None], axis=1)
        running = (said[place, :, step - 1] != end) | (step == 0)
        token = np.where(running, token.reshape(running.shape), end)
        said[place, :, step] = token
        total[place] += np.where(running, gain.reshape(running.shape), 0.0)
        length[place] += running
        kept = np.flatnonzero((token != end).any(axis=1))
        if not len(kept) or step + 1 == settings.max_new_tokens:
            break
        parents = np.arange(len(logits)).reshape(len(place), rows)
        if len(kept) < len(place):
            token, parents, place = token[kept], parents[kept], place[kept]
            dice = [dice[clip] for clip in kept]
            cache.keep(kept)
            scores.keep(kept)
        logits = model.step(cache, token.ravel(), parents.ravel())
    captions = [
        [
            Found(
                [t for t in said[c, r, : length[c, r]].tolist() if t != end],
                float(total[c, r]) / int(length[c, r]),
            )
            for r in range(rows)
        ]
        for c in range(len(said))
    ]
    return [sorted(row, key=lambda found: -found.log_probability) for row in captions]


def _drawn(
    log_probabilities: Float[np.ndarray, "R V"], dice: "list[np.random.Generator]", rows: int
) -> Int[np.ndarray, " R"]:
    """A token for each row: where its clip's random number falls in the summed probabilities."""
    summed = np.exp(log_probabilities, dtype=np.float64).cumsum(axis=1)
    numbers = np.concatenate([one.random(rows) for one in dice])[:, None] * summed[:, -1:]
    return (summed <= numbers).sum(axis=1).clip(max=log_probabilities.shape[1] - 1)


def _largest(
    x: Float[np.ndarray, "B n"], count: int
) -> tuple[Float[np.ndarray, "B J"], Int[np.ndarray, "B J"]]:
    """The `count` largest numbers of each row, in descending order, and their places."""
    count = min(count, x.shape[1])
    places = np.argpartition(x, -count, axis=1)[:, -count:]
    values = np.take_along_axis(x, places, axis=1)
    order = np.lexsort((places, -values), axis=1)
    return np.take_along_axis(values, order, axis=1), np.take_along_axis(places, order, axis=1)
