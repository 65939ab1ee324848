"""`encoder.onnx`: waveforms to the frames (LAMB) or the embedding (Diffusion-Link) of a clip.

All clips in one call have the same length, so no mask is needed and no clip can depend on another.
The log-mel front end is part of the graph.
"""

from collections.abc import Callable

from earwitness.encoders.cnn import CNNConfig
from earwitness.encoders.dual import DualConfig
from earwitness.export.arithmetic import Arithmetic, Floats, batch_norm, convolution
from earwitness.export.graph import Graph, Value
from earwitness.export.log_mel import log_mel

_STRIDE = 16

Body = Callable[[], Arithmetic]
"""makes a new arithmetic for the network's body, which runs twice: on whole chunks, on the rest"""


def cnn_graph(graph: Graph, config: CNNConfig, file: str, body: Body | None = None) -> None:
    """Fills `graph` with the frame encoder `CNN`: "waveform" [B, T] to "h" [B, N, D].

    T is at least one window of the log-mel front end. `body` None: float32.
    """
    wave = graph.input("waveform", "float", ["clips", "samples"])
    h = _frames(graph, wave, config, file, body)
    graph.output(h, "h", ["clips", "frames", config.dim])


def chunk_graph(graph: Graph, config: CNNConfig, file: str) -> list[Value]:
    """Fills `graph` with the network over one chunk per clip: "waveform" [B, T] to "h". Returns the
    activations whose ranges an int8 graph needs.
    """
    wave = graph.input("waveform", "float", ["clips", "samples"])
    level = graph.cut(log_mel(graph, wave, config.log_mel), 1, 0, config.chunk_frames)
    body = Floats(graph, file)
    h = _network(graph, _padded(graph, level), config, file, body)
    graph.output(h, "h", ["clips", "frames", config.dim])
    return body.seen


def dual_graph(
    graph: Graph,
    frames: CNNConfig,
    frames_file: str,
    config: DualConfig,
    file: str,
    body: Body | None = None,
) -> None:
    """Fills `graph` with a dual encoder's audio side: "waveform" [B, T] to "h" [B, 1, C], unit
    vectors of one window each, and to the underlying "frames" [B, N, D].
    """
    wave = graph.input("waveform", "float", ["clips", "samples"])
    h = _frames(graph, wave, frames, frames_file, body)
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


def _frames(g: Graph, wave: Value, config: CNNConfig, file: str, body: Body | None) -> Value:
    """Frames [B, N, D]: whole chunks of `chunk_frames` together, then the remainder."""
    level = log_mel(g, wave, config.log_mel)
    body = body or (lambda: Floats(g, file))
    size, chunk = g.size(level, 1), g.ints(config.chunk_frames)
    whole = g.op("Div", g.op("Sub", size, g.ints(1)), chunk)
    cut = g.op("Mul", whole, chunk)
    first, rest = g.cut(level, 1, 0, cut), g.cut(level, 1, cut, size)
    rest = _padded(g, rest)
    bands = config.log_mel.n_mels
    first = g.reshape(first, -1, config.chunk_frames, bands)
    clips = g.size(wave, 0)
    h = _network(g, first, config, file, body())
    h = g.reshape(h, clips, -1, config.dim)
    return g.op("Concat", h, _network(g, rest, config, file, body()), axis=1)


def _padded(g: Graph, level: Value) -> Value:
    """`level` [B, F, M] padded to a multiple of 16 frames with its own quietest value."""
    missing = g.op("Mod", g.op("Neg", g.size(level, 1)), g.ints(_STRIDE))
    quietest = g.op("ReduceMin", level, g.ints(1, 2), keepdims=1)
    shape = g.op("Concat", g.size(level, 0), missing, g.size(level, 2), axis=0)
    return g.op("Concat", level, g.op("Expand", quietest, shape), axis=1)


def _network(g: Graph, level: Value, config: CNNConfig, file: str, body: Arithmetic) -> Value:
    """The convolutional network: [n, F, M], F a multiple of 16, to [n, F / 16, D].

    Its first and last layers have few of its products and are always computed in float32.
    """
    scale, shift = batch_norm(g, file, "init_bn")
    x = g.op("Unsqueeze", g.op("Add", g.op("Mul", level, scale), shift), g.ints(1))
    x = g.op("Relu", convolution(g, x, file, "body.0.0", "body.0.1", 5, stride=2))
    x = body.enter(x)
    layer = 0
    for blocks in config.blocks:
        layer += 1
        x = body.conv(x, f"body.{layer}.0", f"body.{layer}.1", stride=2)
        for _ in range(blocks):
            layer += 1
            name = f"body.{layer}.body"
            y = body.conv(x, f"{name}.0", f"{name}.1")
            y = body.conv(y, f"{name}.3", f"{name}.4", relu=False)
            x = body.add(x, y)
    x = body.leave(x)
    bands = config.log_mel.n_mels // _STRIDE
    # A dimension of -1 cannot be inferred if there is no whole chunk.
    steps = g.size(x, 2)
    x = g.op("Transpose", x, perm=[0, 1, 3, 2])
    x = g.reshape(x, g.size(x, 0), config.channels[-1] * bands, steps)
    x = g.op("Relu", convolution(g, x, file, "collapse", "collapse_norm", 1))
    for index, dilation in enumerate(config.dilations):
        name = f"temporal.{index}"
        y = convolution(g, x, file, f"{name}.conv", f"{name}.norm", 3, dilation=dilation)
        x = g.op("Add", x, g.op("Relu", y))
    return g.layer_norm(g.op("Transpose", x, perm=[0, 2, 1]), file, "norm")
