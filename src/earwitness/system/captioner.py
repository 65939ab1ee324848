"""The interface behind both papers: audio encoder, prefix, language model, and a guide or none.

LAMB is (CED or CNN, TwoStreamAdapter, causal LM + LoRA, TokenGuide). Diffusion-Link is (CLAP or a
dual encoder, LinkPrefix, causal LM + LoRA). Training, the command line, the service and the
evaluation all call `TorchCaptioner.forward` (losses) or `caption`, and nothing below.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from earwitness.caption import Decoding
from earwitness.encoders import EmbeddingFrames, load_encoder
from earwitness.encoders.base import FrameEncoder, Frames
from earwitness.errors import CheckpointError, ConfigError
from earwitness.io.kinds import is_object
from earwitness.lamb.aligner import CrossModalAligner, caption_codes, masked_mean
from earwitness.lamb.token_guide import GuideProcessor, TokenGuide
from earwitness.lamb.two_stream import match_token_norm
from earwitness.models.card import CardFacts, facts_of, write_card
from earwitness.models.foreign import foreign_errors
from earwitness.models.hub import push
from earwitness.models.names import model_folder, part_folder
from earwitness.models.sound_classes import SoundClassifier
from earwitness.models.weights import check_fit, load_weights, read_json, read_weights
from earwitness.system.decoder import Decoder, Generated, Texts
from earwitness.system.folder import Parts, SaveOptions, open_decoder, save_model
from earwitness.system.folder import load_decoder as load_decoder
from earwitness.system.inference import Inference
from earwitness.system.settings import CaptionerConfig, read_config, written
from earwitness.system.sound_classes import classifier_of


class Batch(NamedTuple):
    """What training passes in: frames of B clips, one caption each, and each clip's recording."""

    frames: Frames
    captions: list[str]
    clip: Int[Tensor, " B"]


class AudioTokens(NamedTuple):
    """`z_a` and where its tokens are real."""

    z: Float[Tensor, "B G E"]
    mask: Bool[Tensor, "B G"]


class TorchCaptioner(nn.Module, Inference):
    """A captioning system: `caption` for users, a call with a `Batch` for training.

    An `earwitness.Captioner`; the methods for that come from `Inference`.
    """

    def __init__(
        self,
        encoder: FrameEncoder,
        decoder: Decoder,
        config: CaptionerConfig,
        name: str = "unnamed",
    ) -> None:
        """A new system: prefix and guide are fresh; audio tokens start at the LLM's own norm."""
        super().__init__()
        self.config, self.name = config, name
        self.encoder, self.decoder = encoder, decoder
        self.encoder.requires_grad_(False)  # type: ignore[attr-defined]
        self.prefix = config.prefix.build(encoder.dim, decoder.dim)
        match_token_norm(self.prefix.project, float(decoder.table.float().norm(dim=1).mean()))
        self.guide = TokenGuide(config.guide, decoder.dim) if config.guide else None
        self.aligner = CrossModalAligner(config.aligner) if config.aligner else None
        self.card: dict[str, Any] = {}

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.decoder.special.device

    def encode(self, waveforms: Sequence[Float[np.ndarray, " _"]]) -> Frames:
        """Hop 2: frames of mono waveforms at the encoder's sample rate."""
        clips = [torch.from_numpy(np.ascontiguousarray(w)).float() for w in waveforms]
        lengths = torch.tensor([len(clip) for clip in clips])
        padded = nn.utils.rnn.pad_sequence(clips, batch_first=True)
        return self.encoder(padded.to(self.device), lengths.to(self.device))

    def audio_tokens(self, frames: Frames) -> AudioTokens:
        """Hop 3: `z_a`, what the LLM hears."""
        return AudioTokens(*self.prefix(frames.h, frames.mask))

    def guide_bias(self, audio_tokens: AudioTokens) -> Float[Tensor, "B V"] | None:
        """beta * g of the Token Guide, or None if the system has none."""
        if self.guide is None:
            return None
        return self.guide(*audio_tokens, self.decoder.table, self.decoder.special)

    def forward(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """LAMB's losses by name.

        `decode` (L_dec), `guide` (L_tg), `cs_global`, `cs_token`, `infonce` (L_cma).
        """
        return self.losses(self.audio_tokens(batch.frames), batch.captions, batch.clip)

    def losses(
        self, z_a: AudioTokens, captions: list[str], clip: Int[Tensor, " B"]
    ) -> dict[str, Float[Tensor, ""]]:
        """The losses of `forward`, for audio tokens that are already computed."""
        texts = self.decoder.tokenize(captions)
        logits = self.decoder(*z_a, texts)
        smoothing = self.config.label_smoothing if self.training else 0.0
        losses = {"decode": _cross_entropy(logits, texts, smoothing)}
        bias = self.guide_bias(z_a)
        if bias is not None:
            losses["guide"] = _cross_entropy(logits + bias[:, None], texts, smoothing)
        if self.aligner is not None:
            z_t, t_mask = self._caption_tokens(texts)
            equal = caption_codes(captions, z_t.device)
            losses |= self.aligner(*z_a, z_t, t_mask, clip, equal, texts.ids)
        return losses

    def pooled_audio(self, frames: Frames) -> Float[Tensor, "B E"]:
        """The mean audio token of each clip: one side of the two quantities of LAMB's Table 2."""
        z_a = self.audio_tokens(frames)
        return masked_mean(z_a.z, z_a.mask)

    def pooled_text(self, captions: list[str]) -> Float[Tensor, "B E"]:
        """The mean caption-token embedding of each caption: the other side."""
        return masked_mean(*self._caption_tokens(self.decoder.tokenize(captions)))

    def _caption_tokens(self, texts: Texts) -> tuple[Float[Tensor, "B L E"], Bool[Tensor, "B L"]]:
        """`z_t` and where it is real: caption words, without special tokens."""
        words = texts.mask & ~self.decoder.special[texts.ids]
        return nn.functional.embedding(texts.ids, self.decoder.table), words

    def generate(self, z_a: AudioTokens, settings: Decoding) -> list[list[Generated]]:
        """Hop 4: the n-best captions of each row of `z_a`, with the guide if there is one."""
        bias = self.guide_bias(z_a)
        processors = [] if bias is None else [GuideProcessor(settings.guide_strength * bias)]
        return self.decoder.generate(*z_a, settings, processors)

    def save(
        self,
        folder: Path | str,
        dtype: torch.dtype | None = None,
        *,
        merge: bool | None = None,
        refer: bool = True,
    ) -> None:
        """Writes a model folder, weights as `dtype` if given.

        A part that came from the hub and was not trained is named by its commit, not copied;
        `refer=False` copies it. `merge`: LoRA weights are merged into a copy of the language model
        (True) or kept beside it as a peft folder (False); None keeps them beside a model that is
        only named, and merges them into one that is copied.

        Raises:
            ConfigError: a quantized language model cannot be merged.
        """
        settings: dict[str, Any] = {"system": self.config.system, "name": self.name}
        settings |= {"config": written(self.config), "card": self.card}
        parts = Parts(self.encoder, self.decoder, self._own_parts())
        save_model(parts, Path(folder), settings, SaveOptions(dtype, merge, refer))

    def save_pretrained(
        self, folder: Path | str, *, card: CardFacts | None = None, **options: Any
    ) -> None:
        """Writes a model folder (`options` as in `save`) and its model card, README.md.

        `card` says what the folder cannot: data, license, scores; without it, the card that the
        model was loaded with. Raises like `save`, and CheckpointError if its card is invalid.
        """
        self.card = facts_of(self.card, card)
        self.save(folder, **options)
        write_card(Path(folder))

    def push_to_hub(
        self,
        repo: str,
        *,
        private: bool | None = None,
        revision: str | None = None,
        card: CardFacts | None = None,
        **options: Any,
    ) -> str:
        """Uploads the model with its card to the hub's repository `repo`, owner/name; its name
        there, owner/name@commit, which `load` accepts.

        The repository and the branch `revision` are created if missing; `options` as in `save`.

        Raises:
            CheckpointError: the hub cannot be reached or refuses. ConfigError: `repo` is not
            owner/name.
        """
        with TemporaryDirectory() as place:
            folder = Path(place) / self.name
            self.save_pretrained(folder, card=card, **options)
            return push(folder, repo, private=private, revision=revision)

    @classmethod
    def load(cls, model: Path | str = "pocket-lamb", device: str = "cpu") -> "TorchCaptioner":
        """The system in a model folder, a pocket model by name, or one from the hub: owner/name or
        owner/name@revision.

        Raises:
            CheckpointError: the folder is missing, damaged, or of a newer format; or the hub has no
                such model, or cannot be reached.
        """
        folder = model_folder(model)
        settings = read_json(folder / "earwitness.json")
        config = read_config(settings, folder / "earwitness.json")
        decoder = open_decoder(folder, config.decoder)
        audio_folder = part_folder(folder, "encoder/audio", settings)
        encoder = load_encoder(part_folder(folder, "encoder", settings), audio_folder)
        state = read_weights(folder / "prefix.safetensors")
        name = str(settings.get("name", folder.name))
        try:
            with torch.device("meta"):
                _check_prefix(config.prefix.build(encoder.dim, decoder.dim), state, folder)
            captioner = cls(encoder, decoder, config, name)
        except ConfigError as error:
            raise CheckpointError(f"{folder / 'earwitness.json'}: {error}") from None
        captioner.load_own_parts(folder)
        captioner.card = _card(settings, folder)
        captioner.to(device).eval()
        captioner.classes = _classes(captioner.encoder, folder, settings)
        with foreign_errors(folder, "a working model"):
            captioner.try_out()
        return captioner

    def try_out(self) -> None:
        """Captions a second of noise with two words, as a smoke test of the loaded parts.

        Raises:
            CheckpointError: what comes out is not finite.
        """
        rng = np.random.default_rng(0)
        noise = (0.1 * rng.standard_normal(self.sample_rate)).astype(np.float32)
        settings = self.config.decoding.model_copy(update={"max_new_tokens": 2})
        with torch.inference_mode():
            [found] = self.generate(self.audio_tokens(self.encode([noise])), settings)
        if any(math.isnan(one.log_probability) for one in found):
            raise CheckpointError(
                f"{self.name}: its weights and settings produce numbers that are not finite"
            )

    def load_own_parts(self, folder: Path) -> None:
        """Replaces the fresh prefix, guide and aligner with those of a model folder.

        Raises:
            CheckpointError: they are missing, damaged, or of other sizes.
        """
        path = folder / "prefix.safetensors"
        load_weights(self._own_parts(), read_weights(path), str(path))

    def _own_parts(self) -> nn.ModuleDict:
        parts = {"prefix": self.prefix, "guide": self.guide, "aligner": self.aligner}
        return nn.ModuleDict({name: part for name, part in parts.items() if part is not None})


def _cross_entropy(
    logits: Float[Tensor, "B L V"], texts: Texts, smoothing: float
) -> Float[Tensor, ""]:
    """Mean cross-entropy over the caption tokens and the end token."""
    return nn.functional.cross_entropy(
        logits[texts.mask].float(), texts.ids[texts.mask], label_smoothing=smoothing
    )


def _classes(
    encoder: FrameEncoder, folder: Path, settings: dict[str, Any]
) -> SoundClassifier | None:
    """The class head beside the frame encoder, which may be inside an embedding encoder."""
    if not isinstance(encoder, EmbeddingFrames):
        return classifier_of(encoder, part_folder(folder, "encoder", settings))
    frames = getattr(encoder.encoder, "frames", None)
    if frames is None:
        return None
    return classifier_of(frames, part_folder(folder, "encoder/audio", settings))


def _card(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    card = settings.get("card", {})
    if not is_object(card):
        found = type(card).__name__
        source = folder / "earwitness.json"
        raise CheckpointError(f"{source}: 'card' is of type {found}; expected a JSON object")
    return card


def _check_prefix(prefix: nn.Module, state: dict[str, Tensor], folder: Path) -> None:
    own = {name.removeprefix("prefix."): v for name, v in state.items() if name[:7] == "prefix."}
    check_fit(prefix, own, str(folder / "prefix.safetensors"))
