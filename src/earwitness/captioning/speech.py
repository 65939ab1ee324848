"""Transcribes speech for subtitles, by a Whisper model through faster-whisper (extra `speech`)."""

# pyright: basic
# (faster-whisper and ctranslate2 have no types.)

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from earwitness import audio
from earwitness.audio import AudioSource
from earwitness.audio.loading import unnoted
from earwitness.audio.sound import Note
from earwitness.audio.tracks import Track
from earwitness.captioning.speech_lines import Word
from earwitness.errors import (
    CheckpointError,
    ConfigError,
    MissingDependencyError,
    one_line,
    pip_install,
)

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

RATE = 16_000
_BLOCK_S = 10.0
_CHUNK_S = 300.0
_SEARCH_S = 30.0
_STEP_S = 0.1
_FILES = ("model.bin", "config.json", "tokenizer.json")


@dataclass
class SpeechModel:
    """A loaded Whisper model; it keeps the language of the first speech that it finds."""

    name: str
    model: "WhisperModel" = field(repr=False)
    language: str | None = None

    @classmethod
    def load(cls, name: str | Path, device: str = "auto") -> "SpeechModel":
        """The Whisper model in a folder (in CTranslate2's format), or on the Hugging Face hub.

        Names such as `tiny.en` and `small` are looked up on this disk only; owner/name is
        downloaded if it is not cached.

        Raises:
            MissingDependencyError: faster-whisper is not installed.
            CheckpointError: there is no such model, or it is damaged.
            ConfigError: this machine has no such device.
        """
        try:
            from ctranslate2 import get_cuda_device_count
            from faster_whisper import WhisperModel
        except ModuleNotFoundError:
            raise MissingDependencyError(
                f"--speech needs the package faster-whisper: {pip_install('speech')}"
            ) from None
        folder = _folder(name)
        kind, _, number = device.partition(":")
        if kind not in ("auto", "cpu", "cuda"):
            raise ConfigError(f"device {device}: speech runs on cpu or cuda; expected one of them")
        if kind == "auto":
            kind = "cuda" if get_cuda_device_count() else "cpu"
        compute = "float32" if kind == "cpu" else "default"
        try:
            model = WhisperModel(
                str(folder), device=kind, device_index=int(number or 0), compute_type=compute
            )
        except (RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(
                f"--speech {name}: cannot be loaded ({one_line(error)}); expected a complete "
                "Whisper model in CTranslate2's format"
            ) from None
        return cls(str(name), model)

    def words(
        self, source: AudioSource, *, track: Track = None, note: Note = unnoted
    ) -> Iterator[Word]:
        """The words in a sound of any length, in order of time. Raises AudioError."""
        blocks = audio.stream(source, RATE, _BLOCK_S, track=track, note=note)
        last = 0.0
        for start, chunk in chunks(blocks):
            found, info = self.model.transcribe(
                chunk,
                language=self.language,
                word_timestamps=True,
                vad_filter=True,
                condition_on_previous_text=False,
            )
            for segment in found:
                self.language = self.language or info.language
                for word in segment.words or ():
                    # A word's start may be given as earlier than the end of the word before it.
                    begin = max(last, start + float(word.start))
                    last = max(begin, start + float(word.end))
                    if text := word.word.strip():
                        yield Word(begin, last, text)


def chunks(
    blocks: Iterable[Float32[np.ndarray, " _"]],
) -> Iterator[tuple[float, Float32[np.ndarray, " _"]]]:
    """A sound in parts of at most five minutes, with their starts in seconds; each is cut at the
    quietest tenth of a second in its last 30 s, where speech is unlikely.
    """
    size, search, step = (round(seconds * RATE) for seconds in (_CHUNK_S, _SEARCH_S, _STEP_S))
    held, start = np.empty(0, np.float32), 0
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) > size:
            levels = np.square(held[size - search : size]).reshape(-1, step).sum(1)
            cut = size - search + (2 * int(levels.argmin()) + 1) * step // 2
            yield start / RATE, held[:cut]
            held, start = held[cut:], start + cut
    if len(held):
        yield start / RATE, held


def _folder(name: str | Path) -> Path:
    """The folder of the model. Raises CheckpointError."""
    folder = Path(name)
    if not folder.is_dir():
        folder = _from_hub(str(name))
    missing = [file for file in _FILES if not (folder / file).is_file()]
    if missing:
        raise CheckpointError(
            f"--speech {name}: {', '.join(missing)} is missing; expected a Whisper model in "
            "CTranslate2's format, as faster-whisper uses it"
        )
    return folder


def _from_hub(name: str) -> Path:
    from faster_whisper.utils import available_models, download_model
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    short = name in available_models()
    if not short and name.count("/") != 1:
        raise CheckpointError(
            f"--speech {name}: no such folder; expected a folder, a name such as tiny.en of a "
            "model on this disk, or owner/name on the Hugging Face hub"
        )
    try:
        return Path(download_model(name, local_files_only=short))
    except LocalEntryNotFoundError:
        more = f"; to download it, use Systran/faster-whisper-{name}" if short else ""
        raise CheckpointError(f"--speech {name}: is not on this disk{more}") from None
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        raise CheckpointError(f"--speech {name}: cannot be fetched ({one_line(error)})") from None
