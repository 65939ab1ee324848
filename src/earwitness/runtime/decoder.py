"""The language model behind its ONNX graph: a prompt once for each clip, then a step per token."""

from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
from jaxtyping import Bool, Float, Int

from earwitness.errors import CheckpointError
from earwitness.runtime.settings import RuntimeSettings
from earwitness.runtime.weights import Rows

_NEVER = np.float32(-1e9)


@dataclass
class Cache:
    """Keys and values: those of the prompt belong to a clip, those of the caption to a beam."""

    prompt: dict[str, ort.OrtValue]
    beams: dict[str, ort.OrtValue]
    prompt_mask: Float[np.ndarray, "B 1 1 P"]
    lengths: Int[np.ndarray, " B"]
    """tokens of each clip's prompt"""
    steps: int = 0

    def keep(self, clips: Int[np.ndarray, " kept"]) -> None:
        """Drops all clips except `clips`; their beams' rows are chosen by the next step."""
        for name, value in self.prompt.items():
            kept = np.ascontiguousarray(value.numpy()[clips])
            self.prompt[name] = ort.OrtValue.ortvalue_from_numpy(kept)
        self.prompt_mask, self.lengths = self.prompt_mask[clips], self.lengths[clips]


class LanguageModel:
    """Logits of the next token after audio tokens and the caption so far."""

    def __init__(
        self, session: ort.InferenceSession, table: Rows, settings: RuntimeSettings
    ) -> None:
        """Raises CheckpointError if `settings` are not those of the graph."""
        self._session, self._table, self._settings = session, table, settings
        _check_fit(session, table, settings)
        layers = range(settings.layers)
        self._keys = [f"{part}_{layer}" for layer in layers for part in ("key", "value")]
        self._outputs = ["logits", *(f"new_{name}" for name in self._keys)]

    def start(self, z: list[Float[np.ndarray, "_ E"]]) -> tuple[Float[np.ndarray, "B V"], Cache]:
        """Logits of the first word after each clip's audio tokens, and the cache so far.

        Prompts of different lengths are padded on the left.
        """
        before, after = (
            self._table(np.array(ids, np.int64))
            for ids in (self._settings.before, self._settings.after)
        )
        prompts = [np.concatenate([before, tokens, after]) for tokens in z]
        lengths = np.array([len(prompt) for prompt in prompts])
        longest = int(lengths.max())
        embeds = np.zeros((len(z), longest, prompts[0].shape[1]), np.float32)
        for row, prompt in enumerate(prompts):
            embeds[row, longest - len(prompt) :] = prompt
        real = np.arange(longest)[None, :] >= (longest - lengths)[:, None]
        padding = np.where(real, np.float32(0), _NEVER)[:, None, None, :]
        mask = padding + np.triu(np.full((longest, longest), _NEVER), 1)
        inputs: dict[str, np.ndarray] = {
            "embeds": embeds,
            "positions": np.maximum(real.cumsum(1) - 1, 0),
            "mask": np.maximum(mask, _NEVER),
            "parents": np.arange(len(z)),
            # Nothing was read before: one masked key takes its place.
            "prompt_mask": np.full((len(z), 1, 1, 1), _NEVER),
        }
        heads, width = self._settings.key_heads, self._settings.head_dim
        for name in self._keys:
            inputs[f"prompt_{name}"] = np.zeros((len(z), heads, 1, width), np.float32)
            inputs[name] = np.zeros((len(z), heads, 0, width), np.float32)
        feed = {name: ort.OrtValue.ortvalue_from_numpy(v) for name, v in inputs.items()}
        logits, *found = self._session.run_with_ort_values(self._outputs, feed)
        prompt = {f"prompt_{name}": v for name, v in zip(self._keys, found, strict=True)}
        empty = np.zeros((1, heads, 0, width), np.float32)
        beams = {name: ort.OrtValue.ortvalue_from_numpy(empty) for name in self._keys}
        return logits.numpy(), Cache(prompt, beams, padding, lengths)

    def step(
        self, cache: Cache, ids: Int[np.ndarray, " R"], parents: Int[np.ndarray, " R"]
    ) -> Float[np.ndarray, "R V"]:
        """Logits after one more token: row r appends `ids[r]` to row `parents[r]` of the
        step before. R = B * K, K beams to each clip of the cache.
        """
        beams = len(ids) // len(cache.lengths)
        inputs: dict[str, np.ndarray] = {
            "embeds": self._table(ids)[:, None],
            "positions": np.repeat(cache.lengths + cache.steps, beams)[:, None],
            "mask": np.zeros((1, 1, 1, 1), np.float32),
            "parents": parents if cache.steps else np.zeros_like(parents),
            "prompt_mask": cache.prompt_mask,
        }
        feed = {name: ort.OrtValue.ortvalue_from_numpy(v) for name, v in inputs.items()}
        feed |= cache.prompt | cache.beams
        logits, *found = self._session.run_with_ort_values(self._outputs, feed)
        cache.beams = dict(zip(self._keys, found, strict=True))
        cache.steps += 1
        return logits.numpy()


def flags(places: tuple[int, ...], size: int) -> Bool[np.ndarray, " size"]:
    """True at `places`."""
    found = np.zeros(size, bool)
    found[list(places)] = True
    return found


def _check_fit(session: ort.InferenceSession, table: Rows, settings: RuntimeSettings) -> None:
    keys = [one.shape for one in session.get_inputs() if one.name.startswith("prompt_key_")]
    logits = {one.name: one.shape for one in session.get_outputs()}.get("logits", [None])[-1]
    facts = {
        "layers": (settings.layers, len(keys)),
        "key_heads": (settings.key_heads, keys[0][1] if keys else None),
        "head_dim": (settings.head_dim, keys[0][3] if keys else None),
        "vocabulary": (settings.vocabulary, table.shape[0]),
        "vocabulary of the logits": (settings.vocabulary, logits),
    }
    for name, (said, found) in facts.items():
        # Graphs may leave a side open, by name.
        if isinstance(found, int) and said != found:
            raise CheckpointError(
                f"runtime.json: {name} is {said}, the decoder has {found}; export the model again"
            )
