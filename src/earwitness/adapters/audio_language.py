"""Audio-language models from transformers as captioners: `hf:OWNER/NAME`, or `hf:FOLDER`.

The model is prompted for a caption (`AdapterOptions.prompt`) through its own chat template.
No code from its repository is run.
"""

import importlib.util
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch.nn.utils.rnn import pad_sequence

from earwitness.adapters.settings import AdapterOptions, as_caption
from earwitness.adapters.tuned import base_folder, is_tuned, with_saved_lora
from earwitness.adapters.voxtral import VoxtralInputs
from earwitness.caption import Caption, CaptionCalls, Decoding, Precision
from earwitness.errors import CheckpointError, ConfigError, MissingDependencyError, pip_install
from earwitness.models.foreign import check_foreign, foreign_errors
from earwitness.models.hub import resolve
from earwitness.models.json_files import read_json
from earwitness.system.decoder import mean_log_probability, search_arguments
from earwitness.system.devices import autocast, torch_device
from earwitness.system.folder import nf4

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin


_WHAT = "an audio-language model that transformers can load"
_GPU_BATCH, _CPU_BATCH = 8, 2


@dataclass(frozen=True)
class Kind:
    """A kind of model: its class in transformers, and the longest clip that it accepts in seconds.

    Beyond that, its processor would silently truncate the clip.
    """

    architecture: str
    seconds: float


KINDS = {
    "qwen2_audio": Kind("Qwen2AudioForConditionalGeneration", 30.0),
    "audioflamingo3": Kind("AudioFlamingo3ForConditionalGeneration", 600.0),
    "voxtral": Kind("VoxtralForConditionalGeneration", 2400.0),
}
"""`model_type` in config.json -> the kind; only those covered by tests"""


class AudioLanguageCaptioner(CaptionCalls):
    """An `earwitness.Captioner` on a third-party model.

    It has no Token Guide, bridge or class head: `guide_strength` has no effect.
    """

    classes = None

    def __init__(
        self,
        model: "PreTrainedModel",
        processor: "ProcessorMixin | VoxtralInputs",
        name: str,
        prompt: str,
    ) -> None:
        self.name, self.model = name, model
        """the transformers model"""
        self._processor: Any = processor
        self._kind = KINDS[str(model.config.model_type)]
        self._text = _prompted(processor, prompt)

    @classmethod
    def load(
        cls, name: str, device: str = "cpu", options: AdapterOptions | None = None
    ) -> "AudioLanguageCaptioner":
        """The model from the hub or a folder, on a device (auto: a GPU if there is one). A peft
        folder gives the model that it names, with the folder's LoRA weights.

        On a GPU the weights keep the number format they were saved in; on a CPU they become fp32.

        Raises:
            CheckpointError: the model is missing, damaged, of another kind, or needs its own code.
            ConfigError: no such device. MissingDependencyError: quantized without bitsandbytes.
        """
        options, place = options or AdapterOptions(), torch_device(device)
        folder = resolve(name)
        if is_tuned(folder):
            model, processor = _load(base_folder(folder), place, options)
            model = with_saved_lora(model, folder)
        else:
            model, processor = _load(folder, place, options)
        return cls(model, processor, f"hf:{name}", options.prompt)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.model.device

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz of the waveforms that the model expects."""
        return int(self._processor.feature_extractor.sampling_rate)

    @property
    def max_seconds(self) -> float:
        """The longest clip that is captioned as a whole."""
        return self._kind.seconds

    @property
    def decoding(self) -> Decoding:
        """Greedy search for up to 80 tokens: what these models are tuned for."""
        return Decoding(beam_size=1, max_new_tokens=80)

    @property
    def min_score(self) -> float:
        """0: the score is not calibrated."""
        return 0.0

    @property
    def batch_hint(self) -> int:
        """How many clips to caption together."""
        return _GPU_BATCH if self.device.type == "cuda" else _CPU_BATCH

    @property
    def batch_limit(self) -> int:
        """The most clips that are worth gathering for one batch."""
        return self.batch_hint

    def precision(self, kind: Precision) -> AbstractContextManager[None]:
        """A context in which captions are computed in this number format (autocast)."""
        return autocast(self.device, kind)

    @torch.inference_mode()
    def caption_together(
        self, waveforms: Sequence[Float[np.ndarray, " _"]], decoding: Decoding
    ) -> list[list[Caption]]:
        """The n-best captions of one batch of mono waveforms, best first.

        Raises:
            ConfigError: not even one of them fits in memory.
        """
        try:
            texts, scores = self._answers(waveforms, decoding)
        except torch.OutOfMemoryError:
            if len(waveforms) == 1:
                raise ConfigError(
                    f"{self.name}: a clip of {len(waveforms[0]) / self.sample_rate:.0f} s does not "
                    "fit in memory; expected a smaller window, or --quantize nf4"
                ) from None
            half = len(waveforms) // 2
            parts = waveforms[:half], waveforms[half:]
            return [row for part in parts for row in self.caption_together(part, decoding)]
        n = decoding.n_best
        return [
            [
                Caption(text, score, 0.0, len(w) / self.sample_rate, self.name)
                for text, score in sorted(
                    zip(texts[n * i :][:n], scores[n * i :][:n], strict=True), key=lambda p: -p[1]
                )
            ]
            for i, w in enumerate(waveforms)
        ]

    def _answers(
        self, waveforms: Sequence[np.ndarray], decoding: Decoding
    ) -> tuple[list[str], list[float]]:
        """Captions and scores, n_best per waveform."""
        inputs = self._inputs(waveforms)
        ends = self._ends()
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices, enabled=decoding.sample):
            if decoding.sample:
                torch.manual_seed(decoding.seed)
            out: Any = self.model.generate(  # type: ignore[operator]
                **inputs,
                output_scores=True,
                return_dict_in_generate=True,
                pad_token_id=ends[0],
                **search_arguments(decoding),
            )
        new = out.sequences[:, inputs["input_ids"].shape[1] :]
        logs = mean_log_probability(self.model, out, new, ends)
        texts = self._processor.batch_decode(new, skip_special_tokens=True)
        return [as_caption(text) for text in texts], np.exp(logs).tolist()

    def loss(
        self, waveforms: Sequence[Float[np.ndarray, " _"]], captions: Sequence[str]
    ) -> Float[torch.Tensor, ""]:
        """The mean cross-entropy of each caption's tokens, end token included, as the answer to the
        prompt about its sound.

        Raises:
            ConfigError: a sound is longer than the model accepts.
        """
        longest = max(map(len, waveforms)) / self.sample_rate
        if longest > self.max_seconds:
            raise ConfigError(
                f"{self.name}: expected clips of at most {self.max_seconds:g} s, got {longest:.1f} "
                "s; set source.seconds to cut them"
            )
        words = self._processor.tokenizer
        asked = {"add_special_tokens": False, "split_special_tokens": True}
        end = self._ends()[0]
        rows = [torch.tensor([*ids, end]) for ids in words(list(captions), **asked)["input_ids"]]
        answers = pad_sequence(rows, batch_first=True, padding_value=-100).to(self.device)
        inputs = self._inputs(waveforms)
        question = inputs["input_ids"]
        real = answers >= 0
        inputs["input_ids"] = torch.cat([question, answers.where(real, end)], 1)
        inputs["attention_mask"] = torch.cat([inputs["attention_mask"], real.long()], 1)
        labels = torch.cat([torch.full_like(question, -100), answers], 1)
        return self.model(**inputs, labels=labels, use_cache=False).loss

    def _ends(self) -> list[int]:
        end: Any = self.model.generation_config.eos_token_id  # type: ignore[union-attr]
        return [end] if isinstance(end, int) else list(end)

    def _inputs(self, waveforms: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
        clips = [np.asarray(w, np.float32) for w in waveforms]
        inputs: Any = self._processor(
            text=[self._text] * len(clips),
            audio=clips,
            return_tensors="pt",
            text_kwargs={"padding": True, "padding_side": "left"},
            audio_kwargs={"sampling_rate": self.sample_rate},
        )
        kind = self.model.dtype
        return {
            name: tensor.to(self.device, kind if tensor.is_floating_point() else None)
            for name, tensor in inputs.items()
        }


def _prompted(processor: "ProcessorMixin | VoxtralInputs", prompt: str) -> str:
    """The text around the sound, by the model's own chat template."""
    content: Any = [{"type": "audio"}, {"type": "text", "text": prompt}]
    asked: Any = [{"role": "user", "content": content}]
    return processor.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)


def _load(folder: Path, device: str, options: AdapterOptions) -> tuple[Any, Any]:
    check_foreign(folder)
    kind = read_json(folder / "config.json").get("model_type")
    if kind not in KINDS:
        raise CheckpointError(
            f"{folder}: a model of type {kind!r}; expected one of {', '.join(sorted(KINDS))}, or "
            "openai: for a server that runs it"
        )
    import transformers
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    safe = {"trust_remote_code": False, "local_files_only": True}
    with foreign_errors(folder, _WHAT):
        if kind == "voxtral":
            processor = VoxtralInputs.load(folder)
        else:
            processor = transformers.AutoProcessor.from_pretrained(folder, **safe)
        model, report = getattr(transformers, KINDS[kind].architecture).from_pretrained(
            folder,
            use_safetensors=True,
            output_loading_info=True,
            dtype="auto" if device.startswith("cuda") else torch.float32,
            device_map={"": device},
            quantization_config=_quantization(options.quantize),
            **safe,
        )
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[problem]:
            first = sorted(report[problem])[0]
            raise CheckpointError(f"{folder}: {problem.replace('_', ' ')}: {first}")
    return model.eval(), processor


def _quantization(kind: Literal["none", "int8", "nf4"]) -> Any:
    if kind == "none":
        return None
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingDependencyError(
            f"--quantize {kind} needs bitsandbytes: {pip_install('qlora')}"
        )
    if kind == "nf4":
        return nf4()
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_8bit=True)
