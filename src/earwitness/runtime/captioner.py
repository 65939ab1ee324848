"""The captioner of ordinary machines: a model folder's ONNX graphs, without torch."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from tokenizers import Tokenizer

from earwitness import audio
from earwitness.audio import AudioSource
from earwitness.errors import CheckpointError
from earwitness.runtime.decoder import LanguageModel, flags
from earwitness.runtime.folder import ModelFiles
from earwitness.runtime.scores import Scores
from earwitness.runtime.search import Found, search
from earwitness.runtime.sessions import Sessions
from earwitness.runtime.types import Caption, Decoding

_BATCH = 8


class RuntimeCaptioner:
    """Captions sounds with the graphs of a model folder. `sample_rate` in Hz.

    Same captions as the torch captioner of the same folder; drawn ones follow a random generator of
    their own (numpy's PCG64, one for each clip), so a seed gives other draws than there.
    """

    def __init__(self, files: ModelFiles, threads: int | None = None) -> None:
        """Opens the graphs. Raises CheckpointError where a file is missing, damaged or foreign."""
        self.name, self.card = files.name, files.card
        self.decoding, self.max_seconds = files.decoding, files.max_seconds
        self._settings = files.runtime
        self.sample_rate = files.runtime.sample_rate
        sessions = Sessions(files.places, threads)
        self._encoder, self._prefix, language_model = (
            sessions.open(files.folder / f"{name}.onnx", files.runtime.graphs[name])
            for name in ("encoder", "prefix", "decoder")
        )
        table = sessions.weight_file("decoder/model.safetensors").rows("model.embed_tokens.weight")
        self._language_model = LanguageModel(language_model, table, files.runtime)
        self._tokenizer = _tokenizer(files.tokenizer, files.runtime.tokenizer)
        self._content = flags(files.runtime.content, files.runtime.vocabulary)

    @classmethod
    def load(cls, model: Path | str = "pocket-lamb", threads: int | None = None) -> "RuntimeCaptioner":
        """The captioner of a model folder, of a pocket model by name, or of one of the hub.

        Raises:
            CheckpointError: the folder is missing or damaged, or was not exported.
        """
        return cls(ModelFiles.of(model), threads)

    def caption(
        self, source: AudioSource, *, decoding: Decoding | None = None
    ) -> "Caption | list[Caption]":
        """The caption of one source: a path, bytes, a binary file, or an (array, sample rate) pair.

        Raises:
            AudioError: the source cannot be read.
        """
        return next(self.caption_batch([source], decoding=decoding))

    def caption_batch(
        self,
        sources: Iterable[AudioSource],
        *,
        decoding: Decoding | None = None,
        batch_size: int = _BATCH,
    ) -> "Iterator[Caption | list[Caption]]":
        """The caption of each source, in order; a list, best first, where `n_best` is above 1.

        Raises:
            AudioError: a source cannot be read.
        """
        settings = decoding or self.decoding
        waiting = iter(sources)
        while chunk := list(islice(waiting, batch_size)):
            waveforms = [
                audio.load(one, self.sample_rate, max_seconds=self.max_seconds) for one in chunk
            ]
            for row in self.caption_waveforms(waveforms, settings):
                yield row if settings.n_best > 1 else row[0]

    def caption_waveforms(
        self, waveforms: Sequence[Float[np.ndarray, " _"]], decoding: Decoding | None = None
    ) -> list[list[Caption]]:
        """The n-best captions of mono waveforms at `sample_rate`, best first."""
        if not len(waveforms):
            return []
        settings = decoding or self.decoding
        z, bias = self.audio_tokens(waveforms)
        content = None if settings.repeat_content_words else self._content
        if bias is not None:
            bias = bias * np.float32(settings.guide_strength)
        scores = Scores(settings, bias, content)
        rows = search(self._language_model, z, scores, settings, self._settings.end)
        ends = [len(waveform) / self.sample_rate for waveform in waveforms]
        return [
            [self._caption(found, end) for found in row] for row, end in zip(rows, ends, strict=True)
        ]

    def audio_tokens(
        self, waveforms: Sequence[Float[np.ndarray, " _"]]
    ) -> tuple[list[Float[np.ndarray, "G E"]], Float[np.ndarray, "B V"] | None]:
        """What the language model reads of each waveform, and the Token Guide's bias, if any."""
        frames = self._frames(waveforms)
        z: list[np.ndarray] = [np.empty(0)] * len(frames)
        bias: list[np.ndarray] = [np.empty(0)] * len(frames)
        for places in _alike([h.shape for h in frames]):
            found = self._prefix.run(None, {"h": np.stack([frames[place] for place in places])})
            for row, place in enumerate(places):
                z[place] = found[0][row]
                if self._settings.guide:
                    bias[place] = found[1][row]
        return z, np.stack(bias) if self._settings.guide else None

    def _frames(self, waveforms: Sequence[np.ndarray]) -> list[Float[np.ndarray, "N D"]]:
        """The encoder's frames of each waveform, or its one embedding."""
        clips = [self._at_least_a_window(waveform) for waveform in waveforms]
        windows = self._settings.windows
        if windows is None:
            return self._encoded(clips)
        places = [
            (clip, start)
            for clip, samples in enumerate(clips)
            for start in _starts(len(samples), windows.size, windows.stride)
        ]
        parts = self._encoded([clips[clip][start : start + windows.size] for clip, start in places])
        sums: dict[int, np.ndarray] = {}
        for (clip, _), e in zip(places, parts, strict=True):
            sums[clip] = sums[clip] + e if clip in sums else e
        units = (sums[clip] for clip in range(len(clips)))
        return [e / np.maximum(np.linalg.norm(e), np.float32(1e-12)) for e in units]

    def _encoded(self, clips: list[np.ndarray]) -> list[np.ndarray]:
        found: list[np.ndarray] = [np.empty(0)] * len(clips)
        for places in _alike([clip.shape for clip in clips]):
            waveforms = np.stack([clips[place] for place in places])
            for place, h in zip(places, self._encoder.run(None, {"waveform": waveforms})[0], strict=True):
                found[place] = h
        return found

    def _at_least_a_window(self, waveform: np.ndarray) -> np.ndarray:
        missing = max(0, self._settings.shortest - len(waveform))
        return np.pad(np.asarray(waveform, np.float32), (0, missing))

    def _caption(self, found: Found, end: float) -> Caption:
        text = self._tokenizer.decode(found.tokens, skip_special_tokens=True)
        score = float(np.exp(found.log_probability))
        return Caption(" ".join(text.split()), score, 0.0, end, self.name)


def _alike(keys: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """Places of equal keys, together."""
    groups: dict[Any, list[int]] = defaultdict(list)
    for place, key in enumerate(keys):
        groups[key].append(place)
    return list(groups.values())


def _starts(samples: int, window: int, stride: int) -> list[int]:
    """First samples of the windows that cover a clip: every `stride`, the last one at its end."""
    last = max(samples - window, 0)
    return [*range(0, last, stride), last]


def _tokenizer(path: Path, digest: str) -> Tokenizer:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: no readable file ({error.strerror})") from None
    if hashlib.sha256(text).hexdigest() != digest:
        raise CheckpointError(
            f"{path}: damaged, or not the tokenizer that the model was exported with; export the "
            "model again"
        )
    try:
        return Tokenizer.from_buffer(text)
    except Exception as error:  # tokenizers raises plain exceptions
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: not a readable tokenizer ({reason})") from None
