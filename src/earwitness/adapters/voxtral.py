"""Voxtral's inputs, built without Mistral's own package.

Its repository has a tokenizer in Mistral's format (`tekken.json`), which transformers reads, but no
chat template, which transformers leaves to mistral-common. That package turns one sound and one
question into `<s>[INST][BEGIN_AUDIO][AUDIO]...[AUDIO]question[/INST]`, with 375 `[AUDIO]` tokens
per 30 s of sound, rounded up.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from earwitness.errors import CheckpointError

_CHUNK_SECONDS, _CHUNK_TOKENS = 30, 375
_CONTROL = ("<s>", "[INST]", "[BEGIN_AUDIO]", "[AUDIO]", "[/INST]", "<pad>")


class VoxtralInputs:
    """Turns sounds and a question into tensors, and tokens into text, as a processor does."""

    def __init__(self, feature_extractor: Any, tokenizer: Any, control: Sequence[int]) -> None:
        self.feature_extractor, self.tokenizer = feature_extractor, tokenizer
        self._start, self._turn, self._sound, self._audio, self._end, self._pad = control

    @classmethod
    def load(cls, folder: Path) -> "VoxtralInputs":
        """Loads a model folder. Raises CheckpointError if the tokenizer lacks a control token."""
        from transformers import AutoTokenizer, WhisperFeatureExtractor

        # Always use transformers' own reader, whatever else is installed.
        words = AutoTokenizer.from_pretrained(folder, mistral_format=False, local_files_only=True)
        known = words.get_vocab()
        control = [known.get(name, -1) for name in _CONTROL]
        if min(control) < 0:
            raise CheckpointError(
                f"{folder / 'tekken.json'}: no token {_CONTROL[control.index(-1)]}; expected the "
                "tokenizer of a Voxtral model"
            )
        return cls(WhisperFeatureExtractor.from_pretrained(folder), words, control)

    def apply_chat_template(self, conversation: Any, **_: Any) -> str:
        """The question of a one-turn conversation; the control tokens are added later."""
        return next(part["text"] for part in conversation[0]["content"] if part["type"] == "text")

    def __call__(
        self, text: Sequence[str], audio: Sequence[Float[np.ndarray, " _"]], **_: Any
    ) -> dict[str, torch.Tensor]:
        """The tokens of each question and sound, left-padded, and the frames of all sounds."""
        frames = [self._frames(waveform) for waveform in audio]
        rows = [self._tokens(one, len(f)) for one, f in zip(text, frames, strict=True)]
        longest = max(map(len, rows))
        return {
            "input_ids": torch.tensor([[self._pad] * (longest - len(r)) + r for r in rows]),
            "attention_mask": torch.tensor([[0] * (longest - len(r)) + [1] * len(r) for r in rows]),
            "input_features": torch.cat(frames),
        }

    def batch_decode(
        self, tokens: Int[torch.Tensor, "B L"], skip_special_tokens: bool = False
    ) -> list[str]:
        """The text of each row of tokens."""
        return self.tokenizer.batch_decode(tokens, skip_special_tokens=skip_special_tokens)

    def _tokens(self, question: str, chunks: int) -> list[int]:
        words = self.tokenizer(question, add_special_tokens=False, split_special_tokens=True)
        sound = [self._sound, *[self._audio] * (_CHUNK_TOKENS * chunks)]
        return [self._start, self._turn, *sound, *words["input_ids"], self._end]

    def _frames(self, waveform: np.ndarray) -> Float[torch.Tensor, "chunks M 3000"]:
        """Log-mel frames in chunks of 30 s, the last one padded with silence."""
        rate = self.feature_extractor.sampling_rate
        found = self.feature_extractor(
            waveform,
            sampling_rate=rate,
            padding=True,
            truncation=False,
            pad_to_multiple_of=_CHUNK_SECONDS * rate,
            return_tensors="pt",
        )["input_features"][0]
        size = _CHUNK_SECONDS * rate // self.feature_extractor.hop_length
        return found.reshape(len(found), -1, size).transpose(0, 1)
