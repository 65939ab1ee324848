"""The seam: what the command line, service, page and jobs need from a captioner; loading one.

A captioner satisfies `Captioner` by its methods alone: neither
`earwitness.system.captioner.TorchCaptioner` nor `earwitness.runtime.RuntimeCaptioner` imports this
file. `load` and the functions below it are the only code above the seam that names an
implementation.
"""

import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar, cast, runtime_checkable

import numpy as np
from jaxtyping import Float

from earwitness.adapters.settings import AdapterOptions
from earwitness.audio import AudioSource
from earwitness.audio.tracks import Track
from earwitness.caption import (
    AudioTextEncoder,
    BridgeEffect,
    Caption,
    CaptionCalls,
    Decoding,
    Reranks,
)
from earwitness.caption import (
    Precision as Precision,
)
from earwitness.errors import (
    CheckpointError,
    ConfigError,
    MissingDependencyError,
    pip_install,
)
from earwitness.models.sound_classes import SoundClassifier
from earwitness.models.sound_events import SoundEvent

if TYPE_CHECKING:
    from earwitness.runtime import RuntimeCaptioner
    from earwitness.system.captioner import TorchCaptioner


_Own = TypeVar("_Own", bound=CaptionCalls)


@runtime_checkable
class Captioner(Protocol):
    """Turns sounds into captions: `Captioner.load("pocket-lamb").caption("dog.wav").text`."""

    name: str
    """the model's name, as given in results"""

    @property
    def device(self) -> object:
        """Where the model runs; as a string it is a device name, such as cpu or cuda:0."""
        ...

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz of the waveforms that the model expects."""
        ...

    @property
    def max_seconds(self) -> float:
        """The longest clip that is captioned as a whole."""
        ...

    @property
    def decoding(self) -> Decoding:
        """The model's own search settings."""
        ...

    @property
    def min_score(self) -> float:
        """The model's own minimum score, 0 to 1. Raises CheckpointError."""
        ...

    @property
    def batch_hint(self) -> int:
        """How many clips to caption together now; may change as memory use becomes known."""
        ...

    @property
    def batch_limit(self) -> int:
        """The most clips that are worth gathering for one batch."""
        ...

    @staticmethod
    def load(model: Path | str = "pocket-lamb", device: str = "cpu") -> "Captioner":
        """The captioner of a model, like `open_captioner` with default adapter options."""
        return open_captioner(model, device)

    def caption(
        self,
        source: AudioSource,
        *,
        decoding: Decoding | None = None,
        rerank: Reranks | None = None,
        track: Track = None,
    ) -> Caption:
        """The best caption of one sound: a path, bytes, a binary file, or (samples, sample rate).

        `track` selects an audio track by its number from 1 or its language.

        Raises:
            AudioError: the sound cannot be read.
        """
        ...

    def n_best(
        self,
        source: AudioSource,
        count: int = 5,
        *,
        decoding: Decoding | None = None,
        rerank: Reranks | None = None,
        track: Track = None,
    ) -> list[Caption]:
        """The `count` best captions of one sound, best first. Raises AudioError."""
        ...

    def caption_batch(
        self,
        sources: Iterable[AudioSource],
        *,
        decoding: Decoding | None = None,
        batch_size: int | None = None,
        rerank: Reranks | None = None,
        track: Track = None,
    ) -> list[Caption]:
        """The best caption of each sound, in order. Raises AudioError."""
        ...

    def caption_waveforms(
        self, waveforms: Sequence[Float[np.ndarray, " _"]], decoding: Decoding | None = None
    ) -> list[list[Caption]]:
        """The n-best captions of mono waveforms at `sample_rate`, best first.

        A waveform's captions do not depend on the other waveforms.

        Raises:
            ConfigError: not even one of them fits in memory.
        """
        ...

    def events(self, source: AudioSource, threshold: float = 0.5) -> list[SoundEvent]:
        """The sound events in a sound of any length, by AudioSet's names, with start and end,
        ordered by start. Raises AudioError, and CheckpointError for a model without a class head.
        """
        ...

    def precision(self, kind: Precision) -> AbstractContextManager[None]:
        """A context in which captions are computed in this number format. Raises ConfigError."""
        ...


@runtime_checkable
class Explains(Protocol):
    """A captioner that can explain its captions, for the page and the service."""

    @property
    def audio_text(self) -> AudioTextEncoder | None:
        """The model's own CLAP; None if it has none."""
        ...

    @property
    def has_guide(self) -> bool:
        """Whether the model has a Token Guide."""
        ...

    @property
    def has_bridge(self) -> bool:
        """Whether the model has a bridge."""
        ...

    def guide_words(
        self,
        waveform: Float[np.ndarray, " T"],
        count: int,
        against: Sequence[Float[np.ndarray, " _"]] = (),
    ) -> list[tuple[str, float]]:
        """The whole words that the Token Guide boosts most, with boosts; none without a guide.

        Boosts are relative to the mean over the waveforms `against`: most of a boost is the same
        for every sound, and the difference shows what is particular to this one.
        """
        ...

    def bridge_effect(self, waveform: Float[np.ndarray, " T"]) -> BridgeEffect | None:
        """What the model says without and with its bridge; None for a model without a bridge."""
        ...


def open_captioner(
    model: Path | str = "pocket-lamb", device: str = "cpu", options: AdapterOptions | None = None
) -> Captioner:
    """The captioner of a model folder, a pocket model by name, or a model on the hub (owner/name or
    owner/name@revision), on `device`: cpu, cuda, cuda:1, mps, or auto for a GPU if there is one.

    On the CPU a folder with ONNX graphs is run by onnxruntime; torch is not even imported.
    `hf:owner/name` (or a folder) is an audio-language model from transformers, and `openai:name`
    one behind an OpenAI-compatible server; `options` apply to these two only.

    Raises:
        MissingDependencyError: the model or the device needs a package that is not installed.
        CheckpointError: the folder is missing, damaged, or in a newer format; or the hub has no
            such model, or cannot be reached.
        ConfigError: this machine has no such device, or the model has no such `options`.
    """
    scheme, name = scheme_of(model)
    if scheme:
        return _adapter(scheme, name, device, options)
    if options not in (None, AdapterOptions()):
        raise ConfigError(
            f"{model}: a prompt, quantization or base URL applies to hf: and openai: models only"
        )
    folder = captioner_folder(model)
    if is_exported(folder) and (device == "cpu" or (device == "auto" and not _has_gpu())):
        from earwitness.runtime import RuntimeCaptioner

        return with_own_rerank(_with_torch(RuntimeCaptioner.load(folder), folder))
    _need_torch(f"{model} on device {device}")
    from earwitness.system.captioner import TorchCaptioner
    from earwitness.system.devices import torch_device

    return with_own_rerank(TorchCaptioner.load(model, torch_device(device)))


def _adapter(
    scheme: Literal["hf", "openai"], name: str, device: str, options: AdapterOptions | None
) -> Captioner:
    # Unlike the protocol's `load`, theirs has no default model.
    if scheme == "openai":
        from earwitness.adapters.endpoint import EndpointCaptioner

        return cast(Captioner, EndpointCaptioner.load(name, options))
    _need_torch(f"hf:{name}")
    from earwitness.adapters.audio_language import AudioLanguageCaptioner

    return cast(Captioner, AudioLanguageCaptioner.load(name, device, options))


def scheme_of(model: Path | str) -> tuple[Literal["", "hf", "openai"], str]:
    """The scheme before a model's name, and the name: ("hf", "owner/name") of "hf:owner/name"."""
    scheme, _, name = str(model).partition(":")
    if scheme == "hf" and name:
        return "hf", name
    if scheme == "openai" and name:
        return "openai", name
    return "", str(model)


def with_own_rerank(captioner: _Own) -> _Own:
    """The captioner, set to choose captions by its class head if it has one."""
    from earwitness.captioning.heard import EventReranker

    if captioner.classes is not None:
        captioner.own_rerank = EventReranker(captioner.classes, as_score=True)
    return captioner


def _with_torch(captioner: "RuntimeCaptioner", folder: Path) -> "RuntimeCaptioner":
    """The captioner with what its graphs lack: if torch is installed, it computes in half precision
    and embeds text.
    """

    def in_torch() -> "TorchCaptioner":
        _need_torch("half precision on the CPU")
        from earwitness.system.captioner import TorchCaptioner

        return TorchCaptioner.load(folder)

    captioner.in_torch = in_torch
    if captioner.embeds and find_spec("torch") is not None:
        captioner.audio_text = _LaterAudioText(folder, captioner.sample_rate)
    return captioner


def _need_torch(what: str) -> None:
    if find_spec("torch") is None:
        raise MissingDependencyError(f"{what} needs torch: {pip_install('train')}")


class _LaterAudioText:
    """The CLAP in a folder, loaded on first use."""

    def __init__(self, folder: Path, sample_rate: int) -> None:
        self._folder, self.sample_rate = folder, sample_rate

    def embed_audio(self, waveforms: Sequence[Float[np.ndarray, " _"]]) -> Float[np.ndarray, "B C"]:
        """Unit-norm embeddings of mono waveforms of any length."""
        return self._encoder.embed_audio(waveforms)

    def embed_text(self, texts: Sequence[str]) -> Float[np.ndarray, "B C"]:
        """Unit-norm embeddings of sentences."""
        return self._encoder.embed_text(texts)

    @cached_property
    def _encoder(self) -> AudioTextEncoder:
        return load_audio_text(self._folder)


def load_audio_text(name: str | Path, device: str = "cpu") -> AudioTextEncoder:
    """The CLAP called `name`: a Diffusion-Link model (its encoder), or the folder of a dual encoder
    or of a Hugging Face CLAP.

    Raises:
        CheckpointError: there is no such model, or it is damaged.
        MissingDependencyError: torch is not installed.
    """
    _need_torch(f"reranking by {name}")
    from earwitness.system.audio_text import TorchAudioText

    return TorchAudioText.load(name, device)


def audio_text_folder(name: str | Path) -> Path:
    """The folder of the CLAP called `name`.

    Raises:
        CheckpointError: there is no such model.
        MissingDependencyError: torch is not installed.
    """
    _need_torch(f"reranking by {name}")
    from earwitness.system.audio_text import encoder_folders

    return encoder_folders(name)[0]


def sound_classes(model: Path | str, device: str = "cpu") -> SoundClassifier:
    """The class head on a model's encoder. Raises CheckpointError if the model has none."""
    if scheme_of(model)[0]:
        captioner_folder(model)  # raises for adapters, which have none, without loading one
    captioner = Captioner.load(model, device)
    if not isinstance(captioner, CaptionCalls) or captioner.classes is None:
        raise CheckpointError(f"{model}: no class head (classes.json) next to its encoder")
    return captioner.classes


def captioner_folder(model: Path | str) -> Path:
    """The folder of the captioner called `model`. Raises CheckpointError."""
    from earwitness.models.names import model_folder

    return model_folder(model)


def captioner_files(model: Path | str) -> list[Path]:
    """The files that tell one captioner from another.

    Raises:
        CheckpointError: there is no such model. MissingDependencyError: it needs torch.
    """
    scheme, name = scheme_of(model)
    if scheme == "openai":
        return []
    names = ["earwitness.json", "prefix.safetensors", "lora/adapter_model.safetensors"]
    if scheme == "hf":
        _need_torch(f"hf:{name}")  # fail before downloading gigabytes of weights
        from earwitness.models.hub import resolve

        folder = resolve(name)
        index = folder / "model.safetensors.index.json"
        weights = index if index.is_file() else folder / "model.safetensors"
        lora = [folder / "adapter_config.json", folder / "adapter_model.safetensors"]
        return [folder / "config.json", folder / "generation_config.json", weights, *lora]
    return [captioner_folder(model) / name for name in names]


def is_exported(folder: Path) -> bool:
    """Whether a model folder holds ONNX graphs."""
    return (folder / "runtime.json").is_file()


def set_threads(count: int) -> None:
    """Lets CPU models loaded from now on use `count` threads."""
    # Torch reads it on import, our runtime when it opens a model.
    os.environ["OMP_NUM_THREADS"] = str(count)
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(count)


def _has_gpu() -> bool:
    """Whether torch might find an NVIDIA GPU; importing it to check takes seconds."""
    driver = Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi") is not None
    return driver and find_spec("torch") is not None
