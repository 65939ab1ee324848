"""The captioner of ordinary machines: a model folder's ONNX graphs, without torch."""

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Float
from tokenizers import Tokenizer

from earwitness.caption import (
    AudioTextEncoder,
    BridgeEffect,
    Caption,
    CaptionCalls,
    Decoding,
    Precision,
)
from earwitness.errors import CheckpointError, ConfigError, one_line
from earwitness.models.card import min_score
from earwitness.models.sound_classes import SoundClassifier
from earwitness.runtime.decoder import LanguageModel, flags
from earwitness.runtime.encoder import Encoder, alike
from earwitness.runtime.folder import ModelFiles
from earwitness.runtime.scores import Scores
from earwitness.runtime.search import Found, search
from earwitness.runtime.sessions import Sessions, computed, read_known
from earwitness.runtime.weights import read_arrays

_BATCH = 8


class InTorch(Protocol):
    """The captioner of the same folder in torch: it computes in other number formats."""

    def precision(self, kind: Precision) -> AbstractContextManager[None]:
        """Captions made inside are computed in this number format."""
        ...

    def caption_together(
        self, waveforms: Sequence[Float[np.ndarray, " _"]], decoding: Decoding
    ) -> list[list[Caption]]:
        """The n-best captions of one batch of mono waveforms, best first."""
        ...


class RuntimeCaptioner(CaptionCalls):
    """Captions sounds with the graphs of a model folder.

    An `earwitness.Captioner` with the same captions as the torch captioner of the same folder.
    Sampled ones use their own random generators (numpy's PCG64, one per clip): a seed gives
    different draws than in torch, and the same ones whatever else is in the batch.
    """

    in_torch: Callable[[], InTorch] | None = None
    """loads the torch captioner, if `Captioner.load` knows of one"""
    audio_text: AudioTextEncoder | None = None
    """the model's own CLAP, if `Captioner.load` knows of one: the graphs hold no text tower"""

    def __init__(self, files: ModelFiles, threads: int | None = None) -> None:
        """Opens the graphs. Raises CheckpointError if a file is missing, damaged or foreign."""
        self.name, self.card, self.folder = files.name, files.card, files.folder
        self._decoding, self._max_seconds = files.decoding, files.max_seconds
        self._settings = files.runtime
        sessions = Sessions(files.places, threads)
        # The prefix takes the most memory to open; the others then use what it leaves free.
        self._prefix, language_model = (
            sessions.open(files.folder / f"{name}.onnx", files.runtime.graphs[name], first)
            for name, first in (("prefix", "h"), ("decoder", "embeds"))
        )
        self._encoder = Encoder(files, sessions)
        table = sessions.weight_file("decoder/model.safetensors").rows("model.embed_tokens.weight")
        self._language_model = LanguageModel(language_model, table, files.runtime)
        self._tokenizer = _tokenizer(files.tokenizer, files.runtime.tokenizer)
        self._content = flags(files.runtime.content, files.runtime.vocabulary)
        self._stand_in: InTorch | None = None
        self._stands_in = False
        whole = files.runtime.windows is None
        if whole or "frames" in self._encoder.names:
            self.classes = SoundClassifier.load(
                files.audio_folder,
                read_arrays,
                self._encoder.frames if whole else self._encoder.frames_of_wholes,
                files.runtime.sample_rate,
            )

    @classmethod
    def load(
        cls, model: Path | str = "pocket-lamb", device: str = "cpu", *, threads: int | None = None
    ) -> "RuntimeCaptioner":
        """The captioner of a model folder, of a pocket model by name, or of one from the hub.

        `threads` None: as many as the machine has cores.

        Raises:
            CheckpointError: the folder is missing or damaged, or was not exported.
        """
        return cls(ModelFiles.of(model), threads)

    @property
    def device(self) -> str:
        """Where the model runs."""
        return "cpu"

    @property
    def sample_rate(self) -> int:
        """Hz of the waveforms that the encoder takes."""
        return self._settings.sample_rate

    @property
    def max_seconds(self) -> float:
        """The longest clip that is captioned as a whole."""
        return self._max_seconds

    @property
    def decoding(self) -> Decoding:
        """The model's own search settings."""
        return self._decoding

    @property
    def min_score(self) -> float:
        """The minimum score in the model's card. Raises CheckpointError."""
        return min_score(self.card, self.name)

    @property
    def batch_hint(self) -> int:
        """How many clips to caption together."""
        return _BATCH

    @property
    def batch_limit(self) -> int:
        """The most clips worth collecting for one batch."""
        return _BATCH

    @contextmanager
    def precision(self, kind: Precision) -> Generator[None]:
        """Captions made inside are computed in this number format: the graphs compute in fp32
        or, where the folder has such a graph, in int8; its torch captioner in any other.

        Raises:
            ConfigError: there is no int8 graph; or another format, and no torch captioner is known.
            MissingDependencyError: another format, and torch is not installed.
        """
        if kind in ("int8", "fp32"):
            with self._encoder.computing(kind):
                yield
            return
        if self.in_torch is None:
            raise ConfigError(
                f"precision {kind}: the ONNX runtime computes in fp32 and int8; expected one of "
                "them, or a model from Captioner.load"
            )
        if self._stand_in is None:
            self._stand_in = self.in_torch()
        with self._stand_in.precision(kind):
            self._stands_in = True
            try:
                yield
            finally:
                self._stands_in = False

    def caption_waveforms(
        self, waveforms: Sequence[Float[np.ndarray, " _"]], decoding: Decoding | None = None
    ) -> list[list[Caption]]:
        """The n-best captions of mono waveforms at `sample_rate`, best first.

        A waveform's captions do not depend on the others, not even sampled ones.
        """
        return self.caption_together(waveforms, decoding or self.decoding) if waveforms else []

    def caption_together(
        self, waveforms: Sequence[Float[np.ndarray, " _"]], decoding: Decoding
    ) -> list[list[Caption]]:
        """The n-best captions of one batch of mono waveforms, best first."""
        if self._stands_in and self._stand_in is not None:
            return self._stand_in.caption_together(waveforms, decoding)
        z, bias = self.audio_tokens(waveforms)
        ends = [len(waveform) / self.sample_rate for waveform in waveforms]
        return self._captions(z, bias, ends, decoding)

    @property
    def embeds(self) -> bool:
        """Whether the encoder is the audio half of a CLAP."""
        return self._settings.windows is not None

    @property
    def has_guide(self) -> bool:
        """Whether the model has a Token Guide."""
        return self._settings.guide

    @property
    def has_bridge(self) -> bool:
        """Whether the model has a bridge that can be left out."""
        return self._settings.bridge

    def guide_words(
        self,
        waveform: Float[np.ndarray, " T"],
        count: int,
        against: Sequence[Float[np.ndarray, " _"]] = (),
    ) -> list[tuple[str, float]]:
        """The whole words that the Token Guide boosts most, and their boosts; none without one.

        Boosts are relative to the mean over the waveforms `against`: nearly all of a boost is the
        same for every sound, and the rest shows what sets this one apart.
        """
        _, bias = self.audio_tokens([waveform, *against])
        if bias is None:
            return []
        boosts = bias[0] - bias[1:].mean(0) if against else bias[0]
        # Word pieces are boosted too, but mean nothing to a reader.
        words = np.where(self._content, boosts, -np.inf)
        best = np.argsort(-words, kind="stable")[:count]
        return [
            (self._tokenizer.decode([int(word)]).strip(), float(words[word]))
            for word in best
            if words[word] > 0
        ]

    def bridge_effect(self, waveform: Float[np.ndarray, " T"]) -> BridgeEffect | None:
        """What the model says without and with its bridge; None for a model that has none."""
        if not self.has_bridge:
            return None
        h = self._encoder.frames([waveform])[0]
        z, embeddings = computed(self._prefix, ["z_both", "embeddings"], {"h": h[None]})
        settings = self.decoding.model_copy(update={"n_best": 1})
        ends = [len(waveform) / self.sample_rate] * 2
        first, second = self._captions(list(z[0][:, None]), None, ends, settings)
        return BridgeEffect((first[0], second[0]), embeddings[0])

    def _captions(
        self,
        z: list[Float[np.ndarray, "_ E"]],
        bias: Float[np.ndarray, "B V"] | None,
        ends: list[float],
        decoding: Decoding,
    ) -> list[list[Caption]]:
        content = None if decoding.repeat_content_words else self._content
        if bias is not None:
            bias = bias * np.float32(decoding.guide_strength)
        scores = Scores(decoding, bias, content)
        rows = search(self._language_model, z, scores, decoding, self._settings.end)
        return [
            [self._caption(found, end) for found in row]
            for row, end in zip(rows, ends, strict=True)
        ]

    def audio_tokens(
        self, waveforms: Sequence[Float[np.ndarray, " _"]]
    ) -> tuple[list[Float[np.ndarray, "_ E"]], Float[np.ndarray, "B V"] | None]:
        """What the language model reads for each waveform, and the Token Guide's bias, if any."""
        frames = self._encoder.frames(waveforms)
        z: list[np.ndarray] = [np.empty(0)] * len(frames)
        bias: list[np.ndarray] = [np.empty(0)] * len(frames)
        for places in alike([h.shape for h in frames]):
            outputs = ["z", "bias"] if self._settings.guide else ["z"]
            h = np.stack([frames[place] for place in places])
            found = computed(self._prefix, outputs, {"h": h})
            for row, place in enumerate(places):
                z[place] = found[0][row]
                if self._settings.guide:
                    bias[place] = found[1][row]
        return z, np.stack(bias) if self._settings.guide else None

    def _caption(self, found: Found, end: float) -> Caption:
        text = self._tokenizer.decode(found.tokens, skip_special_tokens=True)
        score = float(np.exp(found.log_probability))
        if np.isnan(score):
            raise CheckpointError(
                f"{self.name}: its weights and settings produce numbers that are not finite"
            )
        return Caption(" ".join(text.split()), score, 0.0, end, self.name)


def _tokenizer(path: Path, digest: str) -> Tokenizer:
    text = read_known(path, digest)
    try:
        return Tokenizer.from_buffer(text)
    except Exception as error:  # tokenizers raises plain exceptions
        reason = one_line(error)[:200]
        raise CheckpointError(f"{path}: not a readable tokenizer ({reason})") from None
