"""`decoder.onnx`: one step of a Llama language model, for the prompt and for each later token.

Keys and values of the prompt belong to a clip and are shared by its beams; those of the caption
belong to a beam, so beam search only moves the few that were computed after the prompt.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from earwitness.errors import ConfigError
from earwitness.export.graph import Graph, Value

FILE = "decoder/model.safetensors"
TABLE = "model.embed_tokens.weight"

_END = 2**31 - 1
"""past the end of every axis"""


@dataclass(frozen=True)
class LlamaSizes:
    """What the graph needs from a language model's `config.json`."""

    layers: int
    heads: int
    key_heads: int
    head_dim: int
    hidden: int
    vocabulary: int
    feed_forward: int
    theta: float
    epsilon: float

    @property
    def weights(self) -> int:
        """The approximate number of parameters of the language model."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.key_heads)
        layer = attention + 3 * self.hidden * self.feed_forward
        return self.layers * layer + self.vocabulary * self.hidden

    @classmethod
    def of(cls, config: dict[str, Any]) -> "LlamaSizes":
        """The sizes in a `config.json`. Raises ConfigError if it is not a plain Llama."""
        kind = config.get("model_type")
        if kind != "llama":
            raise ConfigError(
                f"cannot export a language model of type {kind!r} to ONNX; expected 'llama'"
            )
        rope: dict[str, Any] = config.get("rope_parameters") or config.get("rope_scaling") or {}
        scaling = rope.get("rope_type", rope.get("type", "default"))
        if scaling != "default" or config.get("hidden_act", "silu") != "silu":
            raise ConfigError(
                f"cannot export a Llama with rope {scaling!r} and activation "
                f"{config.get('hidden_act')!r} to ONNX; expected 'default' and 'silu'"
            )
        heads, hidden = config["num_attention_heads"], config["hidden_size"]
        return cls(
            layers=config["num_hidden_layers"],
            heads=heads,
            key_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or hidden // heads,
            hidden=hidden,
            vocabulary=config["vocab_size"],
            feed_forward=config["intermediate_size"],
            theta=float(rope.get("rope_theta", config.get("rope_theta", 10000.0))),
            epsilon=config.get("rms_norm_eps", 1e-6),
        )


def llama_graph(g: Graph, sizes: LlamaSizes) -> None:
    """Fills `g` with one step of the language model for R = B * K rows, K beams to each of B clips.

    Inputs: "embeds" [R, S, E] (tokens of this step), "positions" [R, S], "mask" [R or 1, 1, S,
    t + S] and "prompt_mask" [B, 1, 1, P] (0 for real keys, very negative for masked ones),
    "parents" [R] (the row that each row extends), and for each layer "prompt_key_i",
    "prompt_value_i" [B, H, P, W] and "key_i", "value_i" [R', H, t, W] of the previous step.
    Outputs: "logits" [R, V] of the last token, and "new_key_i", "new_value_i" [R, H, t + S, W].
    """
    x = g.input("embeds", "float", ["rows", "tokens", sizes.hidden])
    positions = g.input("positions", "int", ["rows", "tokens"])
    mask = g.input("mask", "float", ["mask_rows", 1, "tokens", "keys"])
    prompt_mask = g.input("prompt_mask", "float", ["clips", 1, 1, "prompt"])
    parents = g.input("parents", "int", ["rows"])
    shared = _Shared(
        *_rotation(g, positions, sizes),
        mask,
        prompt_mask,
        parents,
        g.size(prompt_mask, 0),
        g.size(prompt_mask, 3),
    )
    for layer in range(sizes.layers):
        x = _layer(g, x, layer, sizes, shared)
    last = _rms_norm(g, g.reshape(x, -1, sizes.hidden), "model.norm.weight", sizes.epsilon)
    head = "lm_head.weight" if g.has(FILE, "lm_head.weight") else TABLE
    logits = g.op("MatMul", last, g.turned(g.weight(FILE, head)))
    g.output(logits, "logits", ["rows", sizes.vocabulary])


class _Shared(NamedTuple):
    """The inputs shared by all layers."""

    cosines: Value
    sines: Value
    mask: Value
    prompt_mask: Value
    parents: Value
    clips: Value
    prompt: Value


def _layer(g: Graph, x: Value, layer: int, sizes: LlamaSizes, shared: _Shared) -> Value:
    """A layer; the last layer returns only its last token, but all keys and values."""
    name = f"model.layers.{layer}"
    y = _rms_norm(g, x, f"{name}.input_layernorm.weight", sizes.epsilon)
    if layer + 1 == sizes.layers:
        x = g.cut(x, 1, -1, _END)
    x = g.op("Add", x, _attention(g, y, layer, sizes, shared))
    y = _rms_norm(g, x, f"{name}.post_attention_layernorm.weight", sizes.epsilon)
    gate, up = _several(g, y, f"{name}.mlp", ("gate_proj", "up_proj"))
    return g.op("Add", x, g.linear(g.op("Mul", g.silu(gate), up), FILE, f"{name}.mlp.down_proj"))


def _several(g: Graph, x: Value, name: str, parts: tuple[str, ...]) -> list[Value]:
    """Applies several linear layers to `x` in one matrix product."""
    names = [f"{name}.{part}" for part in parts]
    widths = [g.shape_of(FILE, f"{one}.weight")[0] for one in names]
    weight = g.op("Concat", *(g.weight(FILE, f"{one}.weight") for one in names), axis=0)
    y = g.op("MatMul", x, g.turned(weight))
    if g.has(FILE, f"{names[0]}.bias"):
        biases = (g.weight(FILE, f"{one}.bias") for one in names)
        y = g.op("Add", y, g.op("Concat", *biases, axis=0))
    return g.several("Split", len(parts), y, g.ints(*widths), axis=2)


def _attention(g: Graph, x: Value, layer: int, sizes: LlamaSizes, shared: _Shared) -> Value:
    heads, width = sizes.key_heads, sizes.head_dim
    name = f"model.layers.{layer}.self_attn"
    q, k, v = _several(g, x, name, ("q_proj", "k_proj", "v_proj"))
    turn, mask = (shared.cosines, shared.sines), shared.mask
    q_turn = turn
    if layer + 1 == sizes.layers:
        q, mask = g.cut(q, 1, -1, _END), g.cut(mask, 2, -1, _END)
        q_turn = g.cut(turn[0], 2, -1, _END), g.cut(turn[1], 2, -1, _END)
    q, k, v = (_by_head(g, part, width) for part in (q, k, v))
    q, k = _rotated(g, q, q_turn), _rotated(g, k, turn)
    old_k, old_v = (
        g.input(f"{part}_{layer}", "float", ["old_rows", heads, "old", width])
        for part in ("key", "value")
    )
    k = g.op("Concat", g.op("Gather", old_k, shared.parents, axis=0), k, axis=2)
    v = g.op("Concat", g.op("Gather", old_v, shared.parents, axis=0), v, axis=2)
    k = g.output(k, f"new_key_{layer}", ["rows", heads, "keys", width])
    v = g.output(v, f"new_value_{layer}", ["rows", heads, "keys", width])
    prompt_k, prompt_v = (
        g.input(f"prompt_{part}_{layer}", "float", ["clips", heads, "prompt", width])
        for part in ("key", "value")
    )
    if sizes.heads != heads:
        k, v, prompt_k, prompt_v = (
            _repeated(g, part, sizes.heads // heads) for part in (k, v, prompt_k, prompt_v)
        )
    q = g.op("Mul", q, g.number(width**-0.5))
    tokens = g.size(q, 2)
    q_clip = _clip_major(g, q, width, tokens, shared.clips, sizes)
    early = g.op("MatMul", q_clip, g.op("Transpose", prompt_k, perm=[0, 1, 3, 2]))
    early = g.op("Add", early, shared.prompt_mask)
    early = _row_major(g, early, shared.prompt, tokens, sizes)
    late = g.op("MatMul", q, g.op("Transpose", k, perm=[0, 1, 3, 2]))
    late = g.op("Add", late, mask)
    weights = g.op("Softmax", g.op("Concat", early, late, axis=3), axis=-1)
    early = g.cut(weights, 3, 0, shared.prompt)
    late = g.cut(weights, 3, shared.prompt, _END)
    found = _clip_major(g, early, shared.prompt, tokens, shared.clips, sizes)
    found = _row_major(g, g.op("MatMul", found, prompt_v), width, tokens, sizes)
    found = g.op("Add", found, g.op("MatMul", late, v))
    found = g.reshape(g.op("Transpose", found, perm=[0, 2, 1, 3]), 0, 0, sizes.heads * width)
    return g.linear(found, FILE, f"{name}.o_proj")


def _by_head(g: Graph, x: Value, width: int) -> Value:
    """[R, S, H * W] to [R, H, S, W]."""
    return g.op("Transpose", g.reshape(x, 0, 0, -1, width), perm=[0, 2, 1, 3])


def _clip_major(
    g: Graph, x: Value, last: int | Value, tokens: Value, clips: Value, sizes: LlamaSizes
) -> Value:
    """[B * K, H, S, n] to [B, H, K * S, n]: one product for all beams of a clip and its prompt."""
    x = g.reshape(x, clips, -1, sizes.heads, tokens, last)
    x = g.op("Transpose", x, perm=[0, 2, 1, 3, 4])
    return g.reshape(x, 0, sizes.heads, -1, last)


def _row_major(g: Graph, x: Value, last: int | Value, tokens: Value, sizes: LlamaSizes) -> Value:
    """Back from `_clip_major`."""
    x = g.reshape(x, 0, sizes.heads, -1, tokens, last)
    x = g.op("Transpose", x, perm=[0, 2, 1, 3, 4])
    return g.reshape(x, -1, sizes.heads, tokens, last)


def _repeated(g: Graph, x: Value, times: int) -> Value:
    """Repeats each key head for its group of query heads."""
    wide = g.op("Concat", *[g.op("Unsqueeze", x, g.ints(2))] * times, axis=2)
    return g.reshape(wide, g.size(x, 0), -1, g.size(x, 2), g.size(x, 3))


def _rotation(g: Graph, positions: Value, sizes: LlamaSizes) -> tuple[Value, Value]:
    """Cosines and sines of the rotary position embedding, [R, 1, S, W]."""
    half = np.arange(0, sizes.head_dim, 2, dtype=np.float32) / sizes.head_dim
    frequencies = (1.0 / sizes.theta**half).astype(np.float32)
    places = g.op("Cast", g.op("Unsqueeze", positions, g.ints(1, 3)), to=1)
    angles = g.op("Mul", places, g.constant(np.concatenate([frequencies, frequencies])))
    return g.op("Cos", angles), g.op("Sin", angles)


def _rotated(g: Graph, x: Value, turn: tuple[Value, Value]) -> Value:
    left, right = g.several("Split", 2, x, axis=3, num_outputs=2)
    crossed = g.op("Concat", g.op("Neg", right), left, axis=3)
    return g.op("Add", g.op("Mul", x, turn[0]), g.op("Mul", crossed, turn[1]))


def _rms_norm(g: Graph, x: Value, weight: str, epsilon: float) -> Value:
    mean = g.op("ReduceMean", g.op("Pow", x, g.number(2.0)), g.ints(-1), keepdims=1)
    root = g.op("Sqrt", g.op("Add", mean, g.number(epsilon)))
    return g.op("Mul", g.op("Div", x, root), g.weight(FILE, weight))
