"""What training and captioning need on a card, counted from the shapes of a language model before
anything is loaded.

Exact: weights, gradients and optimizer states, from the model built without memory (meta device),
and the cache of keys and values. By formula: activations, as autograd keeps them under bf16
autocast with frozen weights behind LoRA (`activation_bytes`), and logits. Added on top: `OVERHEAD`
for the CUDA context, and a `MARGIN` for what the allocator cannot use.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from earwitness.errors import ConfigError
from earwitness.system.decoder import LoraConfig

GIB = 2**30
OVERHEAD = 1.0 * GIB
"""CUDA context, kernels and workspaces"""
MARGIN = 0.1
"""share of a card lost to fragmentation"""
NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
"""bytes per weight: 4 bits, an 8-bit scale for 64 weights, a 32-bit one for 256 scales (QLoRA)"""

LANGUAGE_MODELS: dict[str, dict[str, Any]] = {
    "llama-2-7b": {
        "model_type": "llama",
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "tie_word_embeddings": False,
    },
    "tinyllama-1.1b": {
        "model_type": "llama",
        "vocab_size": 32000,
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "tie_word_embeddings": False,
    },
    "qwen3-1.7b": {
        "model_type": "qwen3",
        "vocab_size": 151936,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "tie_word_embeddings": True,
    },
    "qwen3-0.6b": {
        "model_type": "qwen3",
        "vocab_size": 151936,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "tie_word_embeddings": True,
    },
    "smollm2-360m": {
        "model_type": "llama",
        "vocab_size": 49152,
        "hidden_size": 960,
        "intermediate_size": 2560,
        "num_hidden_layers": 32,
        "num_attention_heads": 15,
        "num_key_value_heads": 5,
        "tie_word_embeddings": True,
    },
}
"""settings that fix the shapes, as in the models' own config.json"""


@dataclass(frozen=True)
class Plan:
    """One way to train: a language model (settings of its config), its bytes, its LoRA, the sizes
    of a clip.
    """

    model: dict[str, Any]
    quantized: bool = False
    """weights of linear layers in NF4, the rest in bf16"""
    checkpointing: bool = False
    lora: LoraConfig = LoraConfig()
    audio_tokens: int = 32
    prompt_tokens: int = 12
    caption_tokens: int = 24
    """end token included; LAMB's captions have 10 to 20 words"""
    audio_weights: int = 86_000_000
    """of a frozen encoder in float32 (CED-Base)"""
    prefix_weights: int = 24_000_000
    """trained in float32; `prefix_count` counts them"""

    @property
    def tokens(self) -> int:
        """Tokens of a clip in training."""
        return self.audio_tokens + self.prompt_tokens + self.caption_tokens


@dataclass(frozen=True)
class Counted:
    """Weights of a language model by what becomes of them."""

    linear: int
    """in the linear layers of its blocks"""
    other: int
    """embeddings, head and norms"""
    lora: int


def language_model(settings: dict[str, Any], device: str = "meta") -> Any:
    """A language model of these shapes, on the meta device without memory.

    Raises:
        ConfigError: transformers has no such `model_type`.
    """
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    kind = settings["model_type"]
    if kind not in CONFIG_MAPPING:
        raise ConfigError(f"model_type {kind!r} is not one that transformers has")
    given = {key: value for key, value in settings.items() if key != "model_type"}
    with torch.device(device):
        return AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**given))


def count(model: nn.Module, lora: LoraConfig) -> Counted:
    """Weights of `model`, and of LoRA on it; a tied table counts once."""
    head = {id(m.weight) for m in _ends(model) if m is not None}
    linears = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    inner = {name: m for name, m in linears.items() if id(m.weight) not in head}
    linear = sum(m.weight.numel() for m in inner.values())
    adapted = [m for name, m in inner.items() if name.rsplit(".", 1)[-1] in lora.targets]
    return Counted(
        linear,
        sum(p.numel() for p in model.parameters()) - linear,
        sum(lora.r * (m.in_features + m.out_features) for m in adapted),
    )


def weight_bytes(plan: Plan, counted: Counted) -> dict[str, float]:
    """Frozen weights, trained weights, their gradients and AdamW's two states (all float32)."""
    trained = counted.lora + plan.prefix_weights
    linear = counted.linear * (NF4 if plan.quantized else 2)
    return {
        "frozen": float(linear + 2 * counted.other + 4 * plan.audio_weights),
        "trained": 4.0 * trained,
        "gradients": 4.0 * trained,
        "optimizer": 8.0 * trained,
    }


def activation_bytes(plan: Plan, batch: int) -> float:
    """What autograd keeps of the blocks for `batch` clips, at its peak.

    A block keeps, for each token, with E the width, F the feed-forward width, Q and K the widths of
    all query and all key heads: 6 F (gate, its activation, up), 4 Q + 4 K (queries and output, keys
    and values), 16 E (two norms, in float32), 2 E for each LoRA map's dropped-out input, plus 8 Q +
    8 K if queries and keys are normalized (Qwen3). With checkpointing it keeps its input (2 E), and
    one block at a time keeps all.
    """
    m = plan.model
    width, layers = m["hidden_size"], m["num_hidden_layers"]
    head = m.get("head_dim") or width // m["num_attention_heads"]
    queries, keys = m["num_attention_heads"] * head, m["num_key_value_heads"] * head
    block = 6 * m["intermediate_size"] + 4 * (queries + keys) + 16 * width
    block += 2 * width * len(plan.lora.targets) + 4 * m["num_attention_heads"]
    block += 2 * plan.lora.r * len(plan.lora.targets)
    if m["model_type"] == "qwen3":
        block += 8 * (queries + keys)
    kept = 2 * width * layers + block if plan.checkpointing else block * layers
    return float(batch * plan.tokens * (kept + 8 * width))


def logit_bytes(plan: Plan, batch: int) -> float:
    """Logits and both losses on them (L_dec, and L_tg on guided logits), and the guide's table.

    26 bytes per logit: in bf16 (2); for each loss picked out (2), in float32 (4), as
    log-probabilities (4); one gradient (4). The table is in float32 (4) in the guide's graph.
    """
    rows = batch * plan.caption_tokens
    return float(26 * rows * plan.model["vocab_size"]) + 4.0 * (
        plan.model["vocab_size"] * plan.model["hidden_size"]
    )


def training_bytes(plan: Plan, counted: Counted, batch: int) -> dict[str, float]:
    """All parts of a training step by name; their sum is what the card must hold."""
    parts = weight_bytes(plan, counted)
    parts["activations"] = activation_bytes(plan, batch)
    parts["logits"] = logit_bytes(plan, batch)
    # Autocast keeps a bf16 copy of each trained weight during the step.
    parts["cast"] = parts["trained"] / 2
    # One layer's weights are unpacked at a time.
    parts["unpacked"] = (
        2.0 * plan.model["hidden_size"] * plan.model["intermediate_size"] if plan.quantized else 0.0
    )
    return parts


def cache_bytes(plan: Plan, batch: int, beams: int, new_tokens: int) -> float:
    """Keys and values (bf16) of `batch` clips in a search with `beams`."""
    m = plan.model
    head = m.get("head_dim") or m["hidden_size"] // m["num_attention_heads"]
    tokens = plan.audio_tokens + plan.prompt_tokens + new_tokens
    per_token = 2 * 2 * m["num_hidden_layers"] * m["num_key_value_heads"] * head
    return float(batch * beams * tokens * per_token)


def captioning_bytes(
    plan: Plan, counted: Counted, batch: int, beams: int = 4, new_tokens: int = 50
) -> dict[str, float]:
    """All parts of captioning `batch` clips: weights, cache (twice while beams are re-ordered),
    logits and their log-probabilities in float32.
    """
    parts = weight_bytes(plan, counted)
    return {
        "frozen": parts["frozen"] + parts["trained"],
        "cache": cache_bytes(plan, batch, beams, new_tokens) * (2 if beams > 1 else 1),
        "logits": 12.0 * batch * beams * plan.model["vocab_size"],
    }


def step_flops(plan: Plan, counted: Counted, batch: int) -> float:
    """Operations of a training step: 2 per weight and token forward, as many backward (frozen
    weights need no gradient), once more forward with checkpointing; the head for captions only.
    """
    passes = 3 if plan.checkpointing else 2
    head = plan.model["vocab_size"] * plan.model["hidden_size"]
    return (
        2.0
        * passes
        * batch
        * ((counted.linear + counted.lora) * plan.tokens + head * plan.caption_tokens)
    )


def largest_batch(needed: Callable[[int], dict[str, float]], card: float, most: int = 512) -> int:
    """The largest batch whose parts fit on a card of `card` bytes; 0 if not even one does."""
    room = card * (1 - MARGIN) - OVERHEAD
    fitting = [batch for batch in range(1, most + 1) if sum(needed(batch).values()) <= room]
    return max(fitting, default=0)


def prefix_count(audio_width: int, llm_width: int) -> int:
    """Weights of the Two-Stream Adapter of the paper between these widths."""
    from earwitness.lamb.two_stream import TwoStreamAdapter, TwoStreamConfig

    with torch.device("meta"):
        adapter = TwoStreamAdapter(TwoStreamConfig(), audio_width, llm_width)
    return sum(p.numel() for p in adapter.parameters())


def _ends(model: Any) -> list[Any]:
    return [model.get_input_embeddings(), model.get_output_embeddings()]
