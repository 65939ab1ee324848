"""CLAP (LAION, arXiv 2211.06687), Diffusion-Link's encoder, read from Hugging Face folders.

The networks are transformers' `ClapModel`. The preprocessing is ours: fixed windows over the whole
file, whose unit vectors are averaged and renormalized, so that a file always has the same
embedding.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn.functional import normalize

from earwitness.encoders.clap_features import ClapFeatures, ClapFeatureSettings, window_starts
from earwitness.errors import AudioError, CheckpointError, ConfigError, DataError
from earwitness.io.batches import batched
from earwitness.models.building import check_foreign_size
from earwitness.models.foreign import check_foreign, foreign_errors
from earwitness.models.hub import WeightsOrigin
from earwitness.models.json_files import check_sizes, read_json
from earwitness.models.weights import check_finite

if TYPE_CHECKING:
    from transformers import ClapFeatureExtractor, ClapModel, PreTrainedTokenizerBase

_TEXT_BATCH = 64

_COMPUTED_BUFFERS = ("position_ids", "token_type_ids", "relative_position_index")
"""Last parts of keys that older checkpoints store and the current network computes itself."""


class ClapEncoder(nn.Module):
    """Sounds and sentences to unit vectors in one space. Frozen, always in evaluation mode.

    `dim` is C, `sample_rate` in Hz. With `batch_size` 1 (the default on a CPU, where larger ones
    gain little) a file's embedding does not depend on the rest of its batch, to the last bit;
    larger batches change the order of sums in matrix products and so the last bits (about 1e-6).

    Models with feature fusion also load: no window exceeds their window length, so the fusion
    branch, meant for longer clips cropped at random, is never used.
    """

    origin: WeightsOrigin | None = None
    """where the weights were loaded from; None if they are new or were changed"""

    def __init__(
        self,
        model: "ClapModel",
        extractor: "ClapFeatureExtractor",
        tokenizer: "PreTrainedTokenizerBase",
        *,
        stride_seconds: float | None = None,
        batch_size: int | None = None,
        source: str = "CLAP model",
    ) -> None:
        """Combines the parts. `stride_seconds` between windows: one window by default.

        Raises:
            CheckpointError: model and front end do not match.
            ConfigError: the stride is not above 0 and at most one window, or `batch_size` below 1.
        """
        super().__init__()
        self.source = source
        self.model = model.eval().requires_grad_(False)
        self.extractor = extractor
        self.tokenizer = tokenizer
        self.settings = ClapFeatureSettings.of(extractor, f"{source}: preprocessor_config.json")
        _check_fit(self.settings, model.config.audio_config, source)
        self.features = ClapFeatures(self.settings)
        self.dim: int = model.config.projection_dim
        self.sample_rate: int = self.settings.sample_rate
        self.stride = _stride(self.settings, stride_seconds)
        if batch_size is not None and batch_size < 1:
            raise ConfigError(f"batch_size {batch_size}: expected 1 or more")
        self.batch_size = batch_size

    @classmethod
    def from_folder(
        cls,
        folder: Path | str,
        *,
        stride_seconds: float | None = None,
        batch_size: int | None = None,
    ) -> "ClapEncoder":
        """The encoder in a `ClapModel` folder in the hub's layout, with its own processor settings.

        Raises:
            CheckpointError: a file is missing or damaged, or the weights are pickled or incomplete.
        """
        from transformers import AutoTokenizer, ClapFeatureExtractor

        folder = Path(folder)
        _check_files(folder)
        model = _load_model(folder)
        for name in ("preprocessor_config.json", "processor_config.json"):
            if (folder / name).is_file():
                check_sizes(read_json(folder / name), folder / name)
        with foreign_errors(folder, "a readable CLAP processor"):
            extractor = ClapFeatureExtractor.from_pretrained(folder, local_files_only=True)
            tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        return cls(
            model,
            extractor,
            tokenizer,
            stride_seconds=stride_seconds,
            batch_size=batch_size,
            source=str(folder),
        )

    def save(self, folder: Path | str) -> None:
        """Writes an ordinary Hugging Face folder, which `from_folder` reads."""
        self.model.save_pretrained(folder)
        self.extractor.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def train(self, mode: bool = True) -> "ClapEncoder":
        """Stays in evaluation mode: a frozen encoder has no dropout and no batch statistics."""
        return super().train(False)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.model.parameters()).device

    @torch.no_grad()
    def embed_audio(
        self, waveforms: Sequence[Shaped[Tensor, "..."] | Shaped[np.ndarray, "..."]]
    ) -> Float[Tensor, "B C"]:
        """Unit-norm embeddings of mono clips of any length at `sample_rate`, float32.

        A clip longer than a window gives the mean of its windows' unit vectors, renormalized.

        Raises:
            AudioError: a clip is empty, not one-dimensional, not floating point or not finite.
            CheckpointError: the embeddings are not finite.
        """
        clips = [_checked(clip, index) for index, clip in enumerate(waveforms)]
        window = self.settings.window_samples
        places = [
            (index, start)
            for index, clip in enumerate(clips)
            for start in window_starts(len(clip), window, self.stride)
        ]
        sums = torch.zeros(len(clips), self.dim, device=self.device)
        for batch in batched(places, self.batch_size or (1 if self.device.type == "cpu" else 32)):
            windows = [self.features.window(clips[index], start) for index, start in batch]
            embedded = self._embed_windows(torch.stack(windows).to(self.device))
            for (index, _), e in zip(batch, embedded, strict=True):
                sums[index] += e
        return self._finite(normalize(sums, dim=1))

    @torch.no_grad()
    def embed_text(self, texts: Sequence[str]) -> Float[Tensor, "B C"]:
        """Unit-norm embeddings of sentences, float32; tokens past the model's limit are cut.

        Raises:
            DataError: a sentence is blank. CheckpointError: the embeddings are not finite.
        """
        blank = [index for index, text in enumerate(texts) if not text.strip()]
        if blank:
            raise DataError(f"text {blank[0]} is blank: {texts[blank[0]]!r}")
        parts = [torch.zeros(0, self.dim, device=self.device)]
        for batch in batched(texts, _TEXT_BATCH):
            with foreign_errors(self.source, "a working CLAP"):
                tokens = self.tokenizer(
                    list(batch),
                    padding=True,
                    truncation=True,
                    max_length=self._max_tokens(),
                    return_tensors="pt",
                ).to(self.device)
                out: Any = self.model.get_text_features(
                    input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
                )
            parts.append(normalize(out.pooler_output.float(), dim=1))
        return self._finite(torch.cat(parts))

    def _finite(self, e: Float[Tensor, "B C"]) -> Float[Tensor, "B C"]:
        if not bool(torch.isfinite(e).all()):
            raise CheckpointError(
                f"{self.source}: its weights and settings produce numbers that are not finite"
            )
        return e

    def _embed_windows(self, windows: Float[Tensor, "W T"]) -> Float[Tensor, "W C"]:
        mel = self.features(windows)[:, None].to(self.model.dtype)
        not_longer = torch.zeros(len(mel), 1, dtype=torch.bool, device=mel.device)
        with foreign_errors(self.source, "a working CLAP"):
            out: Any = self.model.get_audio_features(input_features=mel, is_longer=not_longer)
        return normalize(out.pooler_output.float(), dim=1)

    def _max_tokens(self) -> int:
        # RoBERTa counts positions from the padding token's number + 1.
        text: Any = self.model.config.text_config
        positions = text.max_position_embeddings - text.pad_token_id - 1
        return min(self.tokenizer.model_max_length, positions)


def _checked(clip: Tensor | np.ndarray, index: int) -> Tensor:
    waveform = torch.as_tensor(clip)
    if waveform.ndim != 1 or len(waveform) == 0:
        raise AudioError(
            f"clip {index} has shape {tuple(waveform.shape)}; expected one or more mono samples"
        )
    if not waveform.is_floating_point():
        raise AudioError(f"clip {index} holds {waveform.dtype} samples; expected floating point")
    if not bool(torch.isfinite(waveform).all()):
        raise AudioError(f"clip {index} holds samples that are not finite numbers")
    return waveform.float()


def _stride(settings: ClapFeatureSettings, seconds: float | None) -> int:
    seconds = settings.window_seconds if seconds is None else seconds
    stride = int(seconds * settings.sample_rate)
    if not 0 < stride <= settings.window_samples:
        raise ConfigError(
            f"stride_seconds {seconds}: expected above 0 and at most {settings.window_seconds}, "
            "the length of one window"
        )
    return stride


def _check_fit(settings: ClapFeatureSettings, audio: Any, source: str) -> None:
    if settings.n_mels != audio.num_mel_bins:
        raise CheckpointError(
            f"{source}: the processor makes {settings.n_mels} mel bins, "
            f"but the network expects {audio.num_mel_bins}"
        )
    if settings.truncation == "fusion" and not audio.enable_fusion:
        raise CheckpointError(
            f"{source}: the processor has truncation 'fusion' but the network has no fusion; "
            "expected 'rand_trunc'"
        )
    limit = audio.spec_size * (audio.spec_size // audio.num_mel_bins)
    if settings.frames > limit:
        raise CheckpointError(
            f"{source}: expected windows of at most {limit} frames, got {settings.frames}"
        )


def _check_files(folder: Path) -> None:
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; expected a Hugging Face CLAP folder")
    needed = (
        ("config.json",),
        ("model.safetensors", "model.safetensors.index.json"),
        ("preprocessor_config.json", "processor_config.json"),
        ("tokenizer.json", "vocab.json"),
    )
    for names in needed:
        if any((folder / name).is_file() for name in names):
            continue
        if "model.safetensors" in names and (folder / "pytorch_model.bin").is_file():
            raise CheckpointError(
                f"{folder}: its weights are pickled (pytorch_model.bin), which can run code when "
                "loaded; expected model.safetensors"
            )
        raise CheckpointError(f"{folder}: {' or '.join(names)} is missing")
    kind = read_json(folder / "config.json").get("model_type")
    if kind != "clap":
        raise CheckpointError(f"{folder}: config.json is of a {kind!r} model; expected 'clap'")


def _load_model(folder: Path) -> "ClapModel":
    from transformers import ClapConfig, ClapModel

    tensors = check_foreign(folder)
    with foreign_errors(folder, "a readable CLAP model"):
        config = ClapConfig.from_pretrained(folder, local_files_only=True)
        check_foreign_size(lambda: ClapModel(config), tensors, folder / "config.json")
        loaded: Any = ClapModel.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    model, report = loaded
    unknown = [
        key for key in report["unexpected_keys"] if key.rpartition(".")[2] not in _COMPUTED_BUFFERS
    ]
    for what, keys in (("lack", report["missing_keys"]), ("also hold", unknown)):
        if keys:
            first = sorted(keys)[0]
            raise CheckpointError(f"{folder}: its weights {what} '{first}' ({len(keys)} in total)")
    check_finite(model.state_dict(), str(folder))
    return model
