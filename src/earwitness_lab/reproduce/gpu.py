"""GPU memory and hours of the papers' stages, counted from shapes; nothing is loaded."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earwitness.errors import CheckpointError
from earwitness.models.weights import read_json
from earwitness.system.decoder import DecoderConfig
from earwitness_lab.reproduce.memory import (
    LANGUAGE_MODELS,
    MARGIN,
    OVERHEAD,
    Plan,
    count,
    language_model,
    largest_batch,
    prefix_count,
    step_flops,
    training_bytes,
)

KNOWN = {"meta-llama/Llama-2-7b-chat-hf": "llama-2-7b"}
"""weights whose shapes are known before they are here"""

A100 = 312e12
"""peak operations per second in bf16 (NVIDIA)"""
REACHED = (0.25, 0.4)
"""share of the peak that LoRA training with transformers and peft is taken to reach: with small
batches of short rows as here, rather the lower one"""

_CED_TOKENS, _CED_WIDTH, _CED_DEPTH, _CED_SECONDS = 252, 768, 12, 10.12
_BYTES_A_NUMBER = 34
"""kept of a transformer layer for each of its tokens and its width (arXiv 2205.05198)"""


@dataclass(frozen=True)
class Need:
    """What a stage needs from a card: bytes at its batch, and the batch that a given card holds."""

    bytes: float
    parts: Callable[[int], dict[str, float]]
    flops_per_clip: float

    def advice(self, card: float) -> str:
        """What to do on a card of `card` bytes that is too small."""
        batch = largest_batch(self.parts, card, 64)
        if batch:
            return (
                f"at most {batch} clips fit: --set fit.batch_size={batch} with fit.accumulate, in "
                "'earwitness train'"
            )
        return "not even one clip fits: model.decoder.quantize = 'nf4', or several cards"


def card_need(recipe: Any) -> Need | None:
    """What a stage `lamb` or `link` needs; None for others, and where the shapes are not known."""
    config = _decoder_config(recipe)
    model = _shapes(recipe) if config else None
    if config is None or model is None:
        return None
    lamb = recipe.stage == "lamb"
    width = model["hidden_size"]
    plan = Plan(
        model,
        quantized=config.quantize == "nf4",
        checkpointing=config.gradient_checkpointing,
        lora=config.lora,
        audio_tokens=recipe.model.prefix.n_global if lamb else 1,
        audio_weights=86_000_000 if lamb else 153_000_000,
        prefix_weights=prefix_count(_CED_WIDTH, width) if lamb else recipe.hidden * (512 + width),
    )
    counted = count(language_model(model), config.lora)
    seconds = recipe.source.seconds if lamb and recipe.encoder_tune == "lora" else 0.0

    def parts(batch: int) -> dict[str, float]:
        encoder = {"encoder": encoder_bytes(seconds) * batch}
        return training_bytes(plan, counted, batch) | encoder

    batch = recipe.fit.batch_size
    total = (sum(parts(batch).values()) + OVERHEAD) / (1 - MARGIN)
    return Need(total, parts, step_flops(plan, counted, 1))


def encoder_bytes(seconds: float) -> float:
    """What autograd keeps of CED-Base with LoRA per clip: an estimate, not measured."""
    chunks = -(-seconds // _CED_SECONDS)
    return chunks * _CED_TOKENS * _CED_WIDTH * _CED_DEPTH * _BYTES_A_NUMBER


def hours(recipe: Any, clips: int) -> tuple[float, float] | None:
    """Hours of the language model's share of a stage on an A100, at best and at worst: expected,
    not measured.
    """
    need = card_need(recipe)
    if need is None:
        return None
    peak = need.flops_per_clip * clips * recipe.fit.epochs / A100 / 3600
    return peak / max(REACHED), peak / min(REACHED)


def _decoder_config(recipe: Any) -> DecoderConfig | None:
    if recipe.stage == "lamb":
        return recipe.model.decoder
    return recipe.language_model if recipe.stage == "link" else None


def _shapes(recipe: Any) -> dict[str, Any] | None:
    """The settings that fix the shapes of the language model; a model to go on from that is not
    there yet is taken to have the known ones.
    """
    name = str(recipe.decoder or next(iter(KNOWN)))
    if Path(name).is_dir():
        try:
            found = read_json(Path(name) / "config.json")
        except CheckpointError:
            return None
        wanted = set(LANGUAGE_MODELS["llama-2-7b"]) | {"head_dim"}
        return {key: value for key, value in found.items() if key in wanted}
    return LANGUAGE_MODELS.get(KNOWN.get(name, ""))
