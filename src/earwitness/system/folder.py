"""The parts of a captioner in its model folder: written, or named by their commit on the hub; the
language model read back.

A part that came from the hub and was not trained is not copied: `earwitness.json` names its
repository and commit. LoRA weights over such a language model are an ordinary peft folder, `lora/`.
"""

import copy
import importlib.util
import shutil
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from earwitness.encoders import save_encoder
from earwitness.encoders.base import FrameEncoder
from earwitness.errors import CheckpointError, ConfigError, MissingDependencyError, pip_install
from earwitness.models.building import check_foreign_size
from earwitness.models.foreign import check_foreign, foreign_errors
from earwitness.models.hub import FETCHED, HubPart, WeightsOrigin
from earwitness.models.names import part_folder
from earwitness.models.tensors import Stored
from earwitness.models.weights import (
    check_finite,
    read_json,
    write_json,
    write_weights,
)
from earwitness.system.decoder import Decoder, DecoderConfig
from earwitness.system.lora import load_lora, save_lora
from earwitness.system.settings import FORMAT

LORA = "lora"
"""subfolder with the LoRA weights that are not merged"""

_KIND = "a readable causal language model"


class Parts(NamedTuple):
    """What a captioner is made of; `own` is the prefix, guide and aligner."""

    encoder: FrameEncoder
    decoder: Decoder
    own: nn.Module


class SaveOptions(NamedTuple):
    """How weights are written; `Captioner.save` explains each."""

    dtype: torch.dtype | None = None
    merge: bool | None = None
    refer: bool = True


def save_model(
    captioner: Parts, folder: Path, settings: dict[str, Any], options: SaveOptions
) -> None:
    """Writes the model folder of a captioner with its `settings`.

    Raises:
        ConfigError: a quantized language model cannot be merged.
    """
    decoder, dtype, refer = captioner.decoder, options.dtype, options.refer
    parts: dict[str, HubPart] = {}
    encoder_base = _unchanged_origin(getattr(captioner.encoder, "encoder", captioner.encoder))
    if encoder_base and refer:
        parts["encoder"] = encoder_base
    else:
        save_encoder(captioner.encoder, folder / "encoder", dtype)
    decoder_base = _unchanged_origin(decoder)
    merge = _merge(decoder, options.merge, decoder_base if refer else None)
    if decoder_base and refer and not merge:
        parts["decoder"] = decoder_base
    else:
        _save_decoder(decoder, folder / "decoder", dtype, merge)
    lora = hasattr(decoder.model, "merge_and_unload") and not merge
    if lora:
        save_lora(decoder.model, folder / LORA, parts.get("decoder"))
    write_weights(folder / "prefix.safetensors", captioner.own, dtype)
    settings = {"format": FORMAT, **settings}
    if parts:
        settings["parts"] = {name: part.model_dump() for name, part in parts.items()}
    if lora:
        settings["lora"] = LORA
    copied = {"encoder": encoder_base, "decoder": decoder_base}
    made = {n: part.model_dump() for n, part in copied.items() if part and n not in parts}
    if made:
        settings["card"] = {**settings["card"], "made_from": made}
    write_json(folder / "earwitness.json", settings)


def open_decoder(folder: Path, config: DecoderConfig, *, train: bool = False) -> Decoder:
    """The language model of the model in `folder`, with its LoRA weights if it has any.

    With `train` it is set up as `config` says; without, nothing is added, and all but LoRA is
    frozen.

    Raises:
        CheckpointError: a file is missing or damaged, or does not fit the rest. ConfigError: its
            LoRA weights are not those that `config` asks for.
    """
    settings = read_json(folder / "earwitness.json")
    base = part_folder(folder, "decoder", settings)
    if settings.get("lora") is None:
        return load_decoder(base, config if train else config.model_copy(update={"tune": "frozen"}))
    if settings["lora"] != LORA:
        raise CheckpointError(
            f"{folder / 'earwitness.json'}: 'lora' is {settings['lora']!r}; expected {LORA!r}"
        )
    if config.tune != "lora":
        raise ConfigError(
            f"{folder}: its language model has LoRA weights of its own, which 'tune = "
            f'"{config.tune}"\' would leave out; save it with merge=True first'
        )
    if importlib.util.find_spec("peft") is None:
        raise MissingDependencyError(
            f"{folder}: its LoRA weights need peft: {pip_install('train')}"
        )
    decoder = load_decoder(base, config)
    load_lora(decoder.model, folder / LORA, "the settings of 'decoder.lora' ask")
    return decoder


def load_decoder(folder: Path | str, config: DecoderConfig) -> Decoder:
    """The causal language model and tokenizer of a Hugging Face folder (safetensors only, no remote
    code), in the number format, quantization and attention that `config` asks for.

    Raises:
        CheckpointError: the folder is missing or damaged, or holds no causal language model.
        ConfigError: incompatible settings.
        MissingDependencyError: quantization or attention need a package that is not installed.
    """
    folder = Path(folder)
    tensors = _check_folder(folder)
    model = _load_model(folder, _load_settings(config), tensors)
    tokenizer = _load_tokenizer(folder)
    _check_vocabulary(folder, model, tokenizer)
    with foreign_errors(folder, _KIND):
        decoder = Decoder(model, tokenizer, config)
    decoder.origin = WeightsOrigin(folder)
    return decoder


def _load_settings(config: DecoderConfig) -> dict[str, Any]:
    """The keyword arguments of transformers' `from_pretrained` for `config`."""
    settings: dict[str, Any] = {"dtype": "auto"}
    if config.dtype != "auto":
        settings["dtype"] = getattr(torch, config.dtype)
    if config.attention != "auto":
        settings["attn_implementation"] = config.attention
    if config.quantize == "nf4":
        settings["quantization_config"] = _quantized(config)
    return settings


def _quantized(config: DecoderConfig) -> Any:
    if config.tune == "full":
        raise ConfigError("decoder.tune 'full' with quantize 'nf4': expected 'lora' or 'frozen'")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingDependencyError(
            f"decoder.quantize 'nf4' needs bitsandbytes: {pip_install('qlora')}"
        )
    return nf4()


def nf4() -> Any:
    """QLoRA's quantization (arXiv 2305.14314): 4-bit normal floats, their scales quantized too."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def _check_folder(folder: Path) -> dict[str, Stored]:
    """Its tensors by name; refuses with one clear sentence what transformers would refuse in many,
    or load.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such decoder folder")
    if (folder / "tokenizer.json").exists():
        read_json(folder / "tokenizer.json")
    config = read_json(folder / "config.json")
    kind = config.get("model_type")
    if "auto_map" in config and not _known_kind(kind):
        raise CheckpointError(
            f"{folder}: a model of type {kind!r} needs code from its repository "
            "(trust_remote_code), which is never run; expected a type that transformers includes"
        )
    return check_foreign(folder)


def _known_kind(kind: Any) -> bool:
    from transformers import CONFIG_MAPPING

    return isinstance(kind, str) and kind in CONFIG_MAPPING


def _load_model(folder: Path, settings: dict[str, Any], tensors: dict[str, Stored]) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    with foreign_errors(folder, _KIND):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        check_foreign_size(
            partial(AutoModelForCausalLM.from_config, config, trust_remote_code=False),
            tensors,
            folder / "config.json",
        )
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            **settings,
        )
    model, report = loaded
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[problem]:
            raise CheckpointError(
                f"{folder}: {problem.replace('_', ' ')}: {sorted(report[problem])[0]}"
            )
    # Rotation frequencies are computed from the settings, and are in no file.
    computed = {name: buffer for name, buffer in model.named_buffers() if "inv_freq" in name}
    check_finite(model.state_dict() | computed, str(folder))
    return model


def _load_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    with foreign_errors(folder, f"{_KIND}, by its tokenizer"):
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)


def _check_vocabulary(folder: Path, model: Any, tokenizer: Any) -> None:
    """Checks that the table has a row per token; it may have more (padded, as Qwen's).

    Only added tokens (a padding token, say) may lie beyond it: captions never hold them.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    needed = max(tokenizer.vocab_size, (tokenizer.eos_token_id or 0) + 1)
    if needed > rows:
        raise CheckpointError(
            f"{folder}: its tokenizer has {needed} tokens, its language model knows {rows}"
        )


def _unchanged_origin(part: Any) -> HubPart | None:
    """Where `part` was loaded from, if that is the hub and its own weights were not trained."""
    origin: WeightsOrigin | None = part.origin
    trained = any(p.requires_grad for name, p in part.named_parameters() if "lora_" not in name)
    return origin.part if origin and not trained else None


def _merge(decoder: Decoder, merge: bool | None, referred: HubPart | None) -> bool:
    quantized = decoder.config.quantize != "none"
    if not hasattr(decoder.model, "merge_and_unload"):
        return False
    if merge and quantized:
        raise ConfigError(
            "a language model quantized to nf4 cannot be merged; save it without merge"
        )
    return not (referred or quantized) if merge is None else merge


def _save_decoder(decoder: Decoder, folder: Path, dtype: torch.dtype | None, merge: bool) -> None:
    if decoder.config.quantize != "none":
        assert decoder.origin is not None
        _copy_weights(decoder.origin.folder, folder)
        return
    model = copy.deepcopy(decoder.model)
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload() if merge else model.unload()
    (model.to(dtype) if dtype else model).save_pretrained(folder)
    decoder.tokenizer.save_pretrained(folder)


def _copy_weights(source: Path, folder: Path) -> None:
    """Copies the files of a language model unchanged; loading quantizes them again."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted({path for pattern in FETCHED for path in source.glob(pattern)}):
        target = folder / path.name
        if not (target.exists() and target.samefile(path)):
            shutil.copyfile(path, target)
