"""`prefix.onnx`: frames to the language model's audio tokens, and the Token Guide."""

import numpy as np
import torch
from jaxtyping import Bool

from earwitness.errors import ConfigError
from earwitness.export.graph import Graph, Value
from earwitness.lamb.baselines import LinearPrefixConfig
from earwitness.lamb.token_guide import TokenGuideConfig
from earwitness.lamb.two_stream import TwoStreamConfig
from earwitness.link import DiffusionLink, LinkPrefix, NoBridge
from earwitness.link.base import Noise, alpha_bar
from earwitness.link.bridge import DiffusionLinkConfig
from earwitness.link.diffusion import ddim_times, timestep_embedding

FILE = "prefix.safetensors"
"""the file with the weights of prefix and guide"""


def two_stream_tokens(g: Graph, h: Value, config: TwoStreamConfig, dim: int) -> Value:
    """`lamb.two_stream.TwoStreamAdapter`: [B, N, D] to [B, n_global, E]."""
    h_s = _ask(g, h, "prefix.semantic", config.heads, dim)
    context = _gru(g, _multi_scale(g, h, config), config.gru_layers, dim)
    h_t = _ask(g, context, "prefix.temporal", config.heads, dim)
    both = g.op("Concat", h_s, h_t, axis=1)
    return g.linear(_ask(g, both, "prefix.fusion", config.heads, dim), FILE, "prefix.project")


def linear_tokens(g: Graph, h: Value, config: LinearPrefixConfig, dim: int) -> Value:
    """`lamb.baselines.LinearPrefix`: [B, N, D] to [B, N / stack, E]."""
    missing = g.op("Mod", g.op("Neg", g.size(h, 1)), g.ints(config.stack))
    pads = g.op("Concat", g.ints(0, 0, 0, 0), missing, g.ints(0), axis=0)
    h = g.reshape(g.op("Pad", h, pads), 0, -1, config.stack * dim)
    return g.linear(g.layer_norm(h, FILE, "prefix.norm"), FILE, "prefix.project")


def link_tokens(g: Graph, h: Value, part: LinkPrefix, dim: int) -> Value:
    """`link.prefix.LinkPrefix`: [B, 1, C] to [B, 1, E].

    With a bridge, the outputs "z_both" [B, 2, E] and "embeddings" [B, 2, C] show its effect: the
    first row is without it, the second with it.

    Raises:
        ConfigError: the bridge cannot be exported.
    """
    e, bridge = g.unit(h), part.bridge
    bridges = isinstance(bridge, DiffusionLink)
    if not bridges and not isinstance(bridge, NoBridge):
        raise ConfigError(
            f"cannot export a bridge of type {type(bridge).__name__} to ONNX; expected "
            "diffusion_link or none"
        )
    if isinstance(bridge, DiffusionLink):
        bridged = g.unit(_diffused(g, g.op("Squeeze", e, g.ints(1)), bridge.config))
        e = g.op("Concat", e, g.op("Unsqueeze", bridged, g.ints(1)), axis=1)
        e = g.output(e, "embeddings", ["clips", 2, dim])
    x = g.op(
        "Relu", g.linear(g.op("Mul", e, g.number(part.scale)), FILE, "prefix.projector.layers.0")
    )
    z = g.linear(x, FILE, "prefix.projector.layers.2")
    if not bridges:
        return z
    z = g.output(z, "z_both", ["clips", 2, g.shape_of(FILE, "prefix.projector.layers.2.weight")[0]])
    return g.cut(z, 1, 1, 2)


def guide_bias(
    g: Graph, z: Value, config: TokenGuideConfig, table: Value, special: Bool[np.ndarray, " V"]
) -> Value:
    """beta times the centered scores of `lamb.token_guide.TokenGuide`, [B, V].

    Raises:
        ConfigError: the metric or aggregation cannot be exported.
    """
    if (config.metric, config.aggregation) != ("l2", "mean"):
        raise ConfigError(
            f"cannot export guide metric {config.metric!r} with aggregation "
            f"{config.aggregation!r} to ONNX; expected 'l2' with 'mean'"
        )
    mean = g.op("ReduceMean", z, g.ints(1), keepdims=0)
    if config.form == "centered":
        mean = g.op("Sub", mean, g.weight(FILE, "guide.mean_token"))
    scores = g.op("Mul", g.op("MatMul", mean, g.turned(table)), g.number(2.0))
    if config.form == "distance":
        # The spread of the audio tokens is the same for all words, so centering removes it.
        scores = g.op("Sub", scores, g.op("ReduceSumSquare", table, g.ints(1), keepdims=0))
    ordinary = g.constant((~special).astype(np.float32))
    total = g.op("ReduceSum", g.op("Mul", scores, ordinary), g.ints(1), keepdims=1)
    center = g.op("Div", total, g.number(float((~special).sum())))
    centered = g.op("Mul", g.op("Sub", scores, center), ordinary)
    return g.op("Mul", centered, g.weight(FILE, "guide.beta"))


def _ask(g: Graph, x: Value, name: str, heads: int, dim: int) -> Value:
    """`lamb.two_stream.QueryAttention`: LN(MHA(Q, x) + Q)."""
    queries = g.weight(FILE, f"{name}.queries")
    part = f"{name}.attention"
    weight, bias = g.weight(FILE, f"{part}.in_proj_weight"), g.weight(FILE, f"{part}.in_proj_bias")
    scale = g.number((dim // heads) ** -0.5)
    asked = g.op("MatMul", queries, g.turned(g.cut(weight, 0, 0, dim)))
    asked = g.op("Mul", g.op("Add", asked, g.cut(bias, 0, 0, dim)), scale)
    q = g.reshape(asked, 1, -1, heads, dim // heads)
    q = g.op("Transpose", q, perm=[0, 2, 1, 3])
    kv = g.op("MatMul", x, g.turned(g.cut(weight, 0, dim, 3 * dim)))
    kv = g.op("Add", kv, g.cut(bias, 0, dim, 3 * dim))
    kv = g.reshape(kv, 0, -1, 2 * heads, dim // heads)
    k, v = g.several("Split", 2, kv, axis=2, num_outputs=2)
    scores = g.op("MatMul", q, g.op("Transpose", k, perm=[0, 2, 3, 1]))
    found = g.op(
        "MatMul", g.op("Softmax", scores, axis=-1), g.op("Transpose", v, perm=[0, 2, 1, 3])
    )
    found = g.reshape(g.op("Transpose", found, perm=[0, 2, 1, 3]), 0, -1, dim)
    found = g.linear(found, FILE, f"{part}.out_proj")
    return g.layer_norm(g.op("Add", found, queries), FILE, f"{name}.norm")


def _multi_scale(g: Graph, h: Value, config: TwoStreamConfig) -> Value:
    """`lamb.two_stream.MultiScaleConv`: its kernels, padded to the widest, as one convolution."""
    widest = max(config.kernels)
    kernels: list[Value] = []
    biases: list[Value] = []
    for index, kernel in enumerate(config.kernels):
        name = f"prefix.conv.branches.{index}"
        pad = (widest - kernel) // 2
        weight = g.weight(FILE, f"{name}.weight")
        kernels.append(g.op("Pad", weight, g.ints(0, 0, pad, 0, 0, pad)) if pad else weight)
        biases.append(g.weight(FILE, f"{name}.bias"))
    x = g.op("Transpose", h, perm=[0, 2, 1])
    x = g.op(
        "Conv",
        x,
        _sum(g, kernels),
        _sum(g, biases),
        kernel_shape=[widest],
        pads=[widest // 2] * 2,
    )
    local = g.gelu(g.op("Transpose", x, perm=[0, 2, 1]))
    return g.layer_norm(g.op("Add", h, local), FILE, "prefix.conv.norm")


def _gru(g: Graph, x: Value, layers: int, dim: int) -> Value:
    """torch's bidirectional GRU: gates (reset, update, new); ONNX has (update, reset, new)."""
    x = g.op("Transpose", x, perm=[1, 0, 2])
    for layer in range(layers):
        weights = [
            g.op(
                "Concat", *(_gates(g, f"{part}_l{layer}{way}") for way in ("", "_reverse")), axis=0
            )
            for part in ("weight_ih", "weight_hh")
        ]
        biases = [
            g.op(
                "Concat",
                *(_gates(g, f"{part}_l{layer}{way}") for part in ("bias_ih", "bias_hh")),
                axis=1,
            )
            for way in ("", "_reverse")
        ]
        x = g.op(
            "GRU",
            x,
            *weights,
            g.op("Concat", *biases, axis=0),
            hidden_size=dim // 2,
            direction="bidirectional",
            linear_before_reset=1,
        )
        x = g.reshape(g.op("Transpose", x, perm=[0, 2, 1, 3]), 0, 0, dim)
    return g.op("Transpose", x, perm=[1, 0, 2])


def _gates(g: Graph, name: str) -> Value:
    """A GRU weight in ONNX's gate order, with a leading axis for the direction."""
    reset, update, new = np.split(np.arange(g.shape_of(FILE, f"prefix.gru.{name}")[0]), 3)
    order = np.concatenate([update, reset, new]).astype(np.int64)
    return g.op("Gather", g.weight(FILE, f"prefix.gru.{name}"), g.constant(order[None]), axis=0)


def _sum(g: Graph, values: list[Value]) -> Value:
    total = values[0]
    for value in values[1:]:
        total = g.op("Add", total, value)
    return total


def _diffused(g: Graph, e: Value, config: DiffusionLinkConfig) -> Value:
    """`link.bridge.DiffusionLink.bridged_from` with seed 0: the noise is a constant."""
    x_0 = g.op("Mul", g.unit(e), g.number(config.dim**0.5))
    bars = alpha_bar(config.schedule, config.diffusion_steps, torch.device("cpu"))
    times = ddim_times(config.start_time, config.steps)
    noise = Noise(0)
    totals: list[Value] = []
    for _ in range(config.draws if config.add_start_noise else 1):
        x_t = x_0
        if config.add_start_noise:
            drawn = noise.like(torch.zeros(1, config.dim)).numpy()
            x_t = _noised(g, x_0, float(bars[times[0]]), g.constant(drawn))
        totals.append(_ddim(g, x_t, times, bars, config))
    return g.unit(_sum(g, totals))


def _ddim(
    g: Graph, x_t: Value, times: list[int], bars: torch.Tensor, config: DiffusionLinkConfig
) -> Value:
    for t, s in zip(times[:-1], times[1:], strict=True):
        x_0 = _denoised(g, x_t, t, config)
        bar = float(bars[t])
        signal = g.op("Mul", x_0, g.number(bar**0.5))
        noise = g.op("Div", g.op("Sub", x_t, signal), g.number((1 - bar) ** 0.5))
        x_t = _noised(g, x_0, float(bars[s]), noise)
    return _denoised(g, x_t, times[-1], config)


def _noised(g: Graph, x_0: Value, bar: float, noise: Value) -> Value:
    signal = g.op("Mul", x_0, g.number(bar**0.5))
    return g.op("Add", signal, g.op("Mul", noise, g.number((1 - bar) ** 0.5)))


def _denoised(g: Graph, x: Value, t: int, config: DiffusionLinkConfig) -> Value:
    """`link.network.ResidualMLP` at time `t`."""
    name = "prefix.bridge.network"
    width = config.width or 2 * config.dim
    time = g.constant(timestep_embedding(torch.tensor([t]), width).numpy())
    time = g.silu(g.linear(time, FILE, f"{name}.time.0"))
    time = g.linear(time, FILE, f"{name}.time.2")
    h = g.linear(x, FILE, f"{name}.input")
    for index in range(config.blocks):
        block = f"{name}.blocks.{index}"
        y = g.silu(g.layer_norm(h, FILE, f"{block}.inner.0"))
        y = g.linear(y, FILE, f"{block}.inner.2")
        y = g.op("Add", y, g.linear(g.silu(time), FILE, f"{block}.time.1"))
        y = g.silu(g.layer_norm(y, FILE, f"{block}.outer.0"))
        h = g.op("Add", h, g.linear(y, FILE, f"{block}.outer.3"))
    h = g.silu(g.layer_norm(h, FILE, f"{name}.output.0", epsilon=1e-6))
    return g.linear(h, FILE, f"{name}.output.2")
