"""`encoder.onnx`: waveforms to the frames (LAMB) or the one embedding (Diffusion-Link) of a clip.

The clips of one call have the same length, so nothing needs a mask and no clip can depend on
another. The log-mel front end is part of the graph, its Fourier transform a matrix product: it runs
wherever a convolution does.
"""

import math

import numpy as np

from earwitness.encoders.cnn import CNNConfig
from earwitness.encoders.dual import DualConfig
from earwitness.encoders.log_mel import LogMelConfig, mel_filters
from earwitness.export.graph import Graph, Value

_STRIDE = 16
_BN_EPSILON = 1e-5


def cnn_graph(graph: Graph, config: CNNConfig, file: str) -> None:
    """Fills `graph` with the frame encoder `CNN`: "waveform" [B, T] to "h" [B, N, D].

    T at least one window of the log-mel front end.
    """
    wave = graph.input("waveform", "float", ["clips", "samples"])
    graph.output(_frames(graph, wave, config, file), "h", ["clips", "frames", config.dim])


def dual_graph(
    graph: Graph, frames: CNNConfig, frames_file: str, config: DualConfig, file: str
) -> None:
    """Fills `graph` with a dual encoder's audio side: "waveform" [B, T] to "h" [B, 1, C], unit
    vectors of one window each, and the "frames" [B, N, D] that they are made from.
    """
    wave = graph.input("waveform", "float", ["clips", "samples"])
    h = _frames(graph, wave, frames, frames_file)
    weights = graph.op("Softmax", graph.linear(h, file, "audio_head.attention"), axis=1)
    means = graph.op("MatMul", graph.op("Transpose", weights, perm=[0, 2, 1]), h)
    means = graph.reshape(means, 0, config.attention_heads * frames.dim)
    highest = graph.op("ReduceMax", h, graph.ints(1), keepdims=0)
    x = graph.op("Concat", means, highest, axis=1)
    x = graph.layer_norm(x, file, "audio_head.head.0")
    x = graph.gelu(graph.linear(x, file, "audio_head.head.1"))
    e = graph.unit(graph.linear(x, file, "audio_head.head.4"))
    graph.output(graph.op("Unsqueeze", e, graph.ints(1)), "h", ["clips", 1, config.dim])
    graph.output(h, "frames", ["clips", "frames", frames.dim])


def _frames(g: Graph, wave: Value, config: CNNConfig, file: str) -> Value:
    """Frames [B, N, D]: whole chunks of `chunk_frames` together, then what is left over."""
    level = _log_mel(g, wave, config.log_mel)
    size, chunk = g.size(level, 1), g.ints(config.chunk_frames)
    whole = g.op("Div", g.op("Sub", size, g.ints(1)), chunk)
    cut = g.op("Mul", whole, chunk)
    first, rest = g.cut(level, 1, 0, cut), g.cut(level, 1, cut, size)
    rest = _padded(g, rest)
    bands = config.log_mel.n_mels
    first = g.reshape(first, -1, config.chunk_frames, bands)
    clips = g.size(wave, 0)
    h = _network(g, first, config, file)
    h = g.reshape(h, clips, -1, config.dim)
    return g.op("Concat", h, _network(g, rest, config, file), axis=1)


def _log_mel(g: Graph, wave: Value, config: LogMelConfig) -> Value:
    """Log-mel spectrograms [B, F, M] in dB; `features.LogMel` says what they are."""
    n_fft, n_mels = config.n_fft, config.n_mels
    even, odd = _folded(g, _windows(g, wave, config), n_fft)
    cosines, sines = _bases(g, n_fft)
    power = g.op(
        "Add",
        *(g.op("Mul", x, x) for x in (g.op("MatMul", even, cosines), g.op("MatMul", odd, sines))),
    )
    mel = g.op("MatMul", power, g.constant(mel_filters(config).numpy()))
    decibels = g.op("Log", g.op("Max", mel, g.number(1e-10)))
    level = g.op("Mul", decibels, g.number(10 / math.log(10)))
    highest = g.op("ReduceMax", level, g.ints(1, 2), keepdims=1)
    floor = g.op("Sub", highest, g.number(config.top_db))
    assert n_mels % _STRIDE == 0
    return g.op("Max", level, floor)


def _windows(g: Graph, wave: Value, config: LogMelConfig) -> Value:
    """Overlapping windows [B, F, n_fft] of reflected waveforms: rows of one hop, side by side."""
    n_fft, hop = config.n_fft, config.hop_samples
    rows = -(-n_fft // hop)
    frames = g.op("Add", g.op("Div", g.size(wave, 1), g.ints(hop)), g.ints(1))
    half = n_fft // 2
    padded = g.op("Pad", wave, g.ints(0, half, 0, half), mode="reflect")
    padded = g.op("Pad", padded, g.ints(0, 0, 0, hop), mode="constant")
    needed = g.op("Mul", g.op("Add", frames, g.ints(rows - 1)), g.ints(hop))
    table = g.reshape(g.cut(padded, 1, 0, needed), 0, -1, hop)
    parts = []
    for row in range(rows):
        part = g.cut(table, 1, row, g.op("Add", frames, g.ints(row)))
        width = min(hop, n_fft - row * hop)
        parts.append(part if width == hop else g.cut(part, 2, 0, width))
    return g.op("Concat", *parts, axis=2)


def _folded(g: Graph, frames: Value, n_fft: int) -> tuple[Value, Value]:
    """Samples n and n_fft - n of each window, added and subtracted: a cosine meets both with the
    same sign, a sine with opposite ones, which halves the transform. Sample 0 has weight 0.
    """
    half = n_fft // 2
    left = g.cut(frames, 2, 1, half)
    right = g.cut(frames, 2, n_fft - 1, half, -1)
    middle = g.cut(frames, 2, half, half + 1)
    even = g.op("Concat", g.op("Add", left, right), middle, axis=2)
    return even, g.op("Sub", left, right)


def _bases(g: Graph, n_fft: int) -> tuple[Value, Value]:
    """Cosines and sines of the transform times the periodic Hann window, computed when opened."""
    half = n_fft // 2
    turns = np.arange(n_fft) * 2 * np.pi / n_fft
    window = (0.5 - 0.5 * np.cos(turns))[1 : half + 1, None].astype(np.float32)
    samples = np.arange(1, half + 1, dtype=np.int64)[:, None]
    bins = np.arange(half + 1, dtype=np.int64)[None, :]
    places = g.op("Mul", g.constant(samples), g.constant(bins))
    places = g.op("Mod", places, g.ints(n_fft))
    tables = (np.cos(turns), np.sin(turns))
    bases = [
        g.op(
            "Mul",
            g.op("Gather", g.constant(table.astype(np.float32)), places, axis=0),
            g.constant(window),
        )
        for table in tables
    ]
    return bases[0], g.cut(bases[1], 0, 0, half - 1)


def _padded(g: Graph, level: Value) -> Value:
    """`level` [B, F, M] with its own quietest value appended up to a multiple of 16 frames."""
    missing = g.op("Mod", g.op("Neg", g.size(level, 1)), g.ints(_STRIDE))
    quietest = g.op("ReduceMin", level, g.ints(1, 2), keepdims=1)
    shape = g.op("Concat", g.size(level, 0), missing, g.size(level, 2), axis=0)
    return g.op("Concat", level, g.op("Expand", quietest, shape), axis=1)


def _network(g: Graph, level: Value, config: CNNConfig, file: str) -> Value:
    """The convolutional network: [n, F, M], F a multiple of 16, to [n, F / 16, D]."""
    scale, shift = _norm(g, file, "init_bn")
    x = g.op("Unsqueeze", g.op("Add", g.op("Mul", level, scale), shift), g.ints(1))
    layer = 0
    x = g.op("Relu", _conv(g, x, file, "body.0.0", "body.0.1", 5, stride=2))
    for blocks in config.blocks:
        layer += 1
        x = g.op("Relu", _conv(g, x, file, f"body.{layer}.0", f"body.{layer}.1", 3, stride=2))
        for _ in range(blocks):
            layer += 1
            name = f"body.{layer}.body"
            y = g.op("Relu", _conv(g, x, file, f"{name}.0", f"{name}.1", 3))
            y = _conv(g, y, file, f"{name}.3", f"{name}.4", 3)
            x = g.op("Relu", g.op("Add", x, y))
    bands = config.log_mel.n_mels // _STRIDE
    # A side of -1 cannot be found out where there is no whole chunk.
    steps = g.size(x, 2)
    x = g.op("Transpose", x, perm=[0, 1, 3, 2])
    x = g.reshape(x, g.size(x, 0), config.channels[-1] * bands, steps)
    x = g.op("Relu", _conv(g, x, file, "collapse", "collapse_norm", 1))
    for index, dilation in enumerate(config.dilations):
        name = f"temporal.{index}"
        y = _conv(g, x, file, f"{name}.conv", f"{name}.norm", 3, dilation=dilation)
        x = g.op("Add", x, g.op("Relu", y))
    return g.layer_norm(g.op("Transpose", x, perm=[0, 2, 1]), file, "norm")


def _conv(
    g: Graph,
    x: Value,
    file: str,
    conv: str,
    norm: str,
    kernel: int,
    stride: int = 1,
    dilation: int = 1,
) -> Value:
    """A convolution with its batch norm folded in."""
    weight = g.weight(file, f"{conv}.weight")
    sides = len(g.shape_of(file, f"{conv}.weight")) - 2
    scale, shift = _norm(g, file, norm)
    weight = g.op("Mul", weight, g.reshape(scale, -1, *([1] * (sides + 1))))
    pad = kernel // 2 * dilation
    return g.op(
        "Conv",
        x,
        weight,
        shift,
        kernel_shape=[kernel] * sides,
        pads=[pad] * 2 * sides,
        strides=[stride] * sides,
        dilations=[dilation] * sides,
    )


def _norm(g: Graph, file: str, name: str) -> tuple[Value, Value]:
    """Scale and shift of a batch norm in evaluation."""
    weight, bias, mean, variance = (
        g.weight(file, f"{name}.{part}")
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    spread = g.op("Sqrt", g.op("Add", variance, g.number(_BN_EPSILON)))
    scale = g.op("Div", weight, spread)
    return scale, g.op("Sub", bias, g.op("Mul", mean, scale))
