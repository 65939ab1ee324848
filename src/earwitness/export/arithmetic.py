"""The body of the convolutional encoder in float32 or int8: the same layers, different operators.

int8 is what machines multiply fastest. Activations are unsigned 8-bit integers whose ranges are
calibrated on sounds; weights are signed, with one scale per output channel, computed when a graph
is loaded, so both graphs read the same weight file. Weights use 7 bits, so that no sum of two
products overflows the 16 bits that processors without VNNI have for it (onnxruntime's
`reduce_range`).
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from onnx import TensorProto

from earwitness.export.graph import Graph, Value

_BN_EPSILON = 1e-5
_LARGEST_WEIGHT = 63.0
_CONTRIB = "com.microsoft"
"""onnxruntime's own operators: int8 addition, and channels-last convolutions"""


class Range(NamedTuple):
    """The expected minimum and maximum of an activation."""

    low: float
    high: float


class Arithmetic(Protocol):
    """How the body's layers are computed; between `enter` and `leave`, values have its format."""

    def enter(self, x: Value) -> Value:
        """Converts nonnegative float32 activations [n, C, F, M] for the layers below."""
        ...

    def conv(self, x: Value, conv: str, norm: str, stride: int = 1, relu: bool = True) -> Value:
        """A 3 x 3 convolution with its batch norm."""
        ...

    def add(self, x: Value, y: Value) -> Value:
        """The sum, with values below 0 set to 0."""
        ...

    def leave(self, x: Value) -> Value:
        """Converts back to float32 activations [n, C, F, M]."""
        ...


class Floats:
    """float32. `seen` lists the activations whose ranges an int8 graph needs."""

    def __init__(self, g: Graph, file: str) -> None:
        self._g, self._file = g, file
        self.seen: list[Value] = []

    def enter(self, x: Value) -> Value:
        """`x` itself."""
        return self._noted(x)

    def conv(self, x: Value, conv: str, norm: str, stride: int = 1, relu: bool = True) -> Value:
        """A 3 x 3 convolution with its batch norm."""
        y = convolution(self._g, x, self._file, conv, norm, 3, stride)
        return self._noted(self._g.op("Relu", y) if relu else y)

    def add(self, x: Value, y: Value) -> Value:
        """The sum, with values below 0 set to 0."""
        return self._noted(self._g.op("Relu", self._g.op("Add", x, y)))

    def leave(self, x: Value) -> Value:
        """`x` itself."""
        return x

    def _noted(self, x: Value) -> Value:
        self.seen.append(x)
        return x


class Int8:
    """8-bit integers, channels last. `ranges` are those of `Floats.seen`, in the same order."""

    def __init__(self, g: Graph, file: str, ranges: Sequence[tuple[float, float]]) -> None:
        self._g, self._file = g, file
        self._ranges = iter(ranges)
        self._scales: dict[Value, tuple[Value, Value]] = {}

    def enter(self, x: Value) -> Value:
        """`x` in 8 bits, channels last."""
        scale, zero = self._next()
        x = self._g.op("Transpose", x, perm=[0, 2, 3, 1])
        return self._with(self._g.op("QuantizeLinear", x, scale, zero), scale, zero)

    def conv(self, x: Value, conv: str, norm: str, stride: int = 1, relu: bool = True) -> Value:
        """A 3 x 3 convolution with its batch norm; a range that starts at 0 acts as a ReLU."""
        g = self._g
        weight, shift = folded(g, self._file, conv, norm)
        largest = g.op("ReduceMax", g.op("Abs", weight), g.ints(1, 2, 3), keepdims=0)
        steps = g.op("Div", largest, g.number(_LARGEST_WEIGHT))
        # A channel of zeros has no scale.
        steps = g.op("Max", steps, g.number(1e-12))
        whole = g.op("Round", g.op("Div", weight, g.reshape(steps, -1, 1, 1, 1)))
        zeros = g.op("Mul", steps, g.number(0.0))
        (scale, zero), (out_scale, out_zero) = self._scales[x], self._next()
        shift = g.op("Round", g.op("Div", shift, g.op("Mul", steps, scale)))
        y = g.op(
            "QLinearConv",
            x,
            scale,
            zero,
            g.op("Cast", whole, to=TensorProto.INT8),
            steps,
            g.op("Cast", zeros, to=TensorProto.INT8),
            out_scale,
            out_zero,
            g.op("Cast", shift, to=TensorProto.INT32),
            domain=_CONTRIB,
            channels_last=1,
            kernel_shape=[3, 3],
            pads=[1] * 4,
            strides=[stride] * 2,
        )
        return self._with(y, out_scale, out_zero)

    def add(self, x: Value, y: Value) -> Value:
        """The sum; its range starts at 0, which acts as a ReLU."""
        scale, zero = self._next()
        inputs = (x, *self._scales[x], y, *self._scales[y], scale, zero)
        return self._with(self._g.op("QLinearAdd", *inputs, domain=_CONTRIB), scale, zero)

    def leave(self, x: Value) -> Value:
        """Converts back to float32 activations, channels first."""
        floats = self._g.op("DequantizeLinear", x, *self._scales[x])
        return self._g.op("Transpose", floats, perm=[0, 3, 1, 2])

    def _with(self, x: Value, scale: Value, zero: Value) -> Value:
        self._scales[x] = scale, zero
        return x

    def _next(self) -> tuple[Value, Value]:
        """The scale and zero point of the next activation."""
        low, high = next(self._ranges)
        step = max(high - low, 1e-6) / 255
        zero = np.uint8(round(-low / step))
        return self._g.number(step), self._g.constant(zero)


def convolution(
    g: Graph,
    x: Value,
    file: str,
    conv: str,
    norm: str,
    kernel: int,
    stride: int = 1,
    dilation: int = 1,
) -> Value:
    """A convolution with its batch norm folded in, in as many dimensions as its weight has."""
    weight, shift = folded(g, file, conv, norm)
    sides = len(g.shape_of(file, f"{conv}.weight")) - 2
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


def folded(g: Graph, file: str, conv: str, norm: str) -> tuple[Value, Value]:
    """Weight and bias of a bias-free convolution folded with the batch norm after it."""
    weight = g.weight(file, f"{conv}.weight")
    sides = len(g.shape_of(file, f"{conv}.weight")) - 2
    scale, shift = batch_norm(g, file, norm)
    return g.op("Mul", weight, g.reshape(scale, -1, *([1] * (sides + 1)))), shift


def batch_norm(g: Graph, file: str, name: str) -> tuple[Value, Value]:
    """The scale and shift of a batch norm in evaluation mode."""
    weight, bias, mean, variance = (
        g.weight(file, f"{name}.{part}")
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    spread = g.op("Sqrt", g.op("Add", variance, g.number(_BN_EPSILON)))
    scale = g.op("Div", weight, spread)
    return scale, g.op("Sub", bias, g.op("Mul", mean, scale))
