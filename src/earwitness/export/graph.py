"""Builds ONNX graphs by hand: operators are method calls, weights refer to safetensors files.

A weight is stored once, where training reads it: the graph references its file, offset and length
(ONNX external data), and casts it to float32. Everything that depends only on weights (folded
norms, transposed matrices) is computed by onnxruntime when it loads the graph.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from jaxtyping import Shaped
from onnx import TensorProto, helper, numpy_helper

from earwitness.errors import ConfigError
from earwitness.runtime.weights import WeightFile

OPSET = 18
IR_VERSION = 9
"""what onnxruntime 1.16 and its browser build can read"""

Value = str
"""the name of an operator's output"""

_TYPES = {
    "F16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "F32": TensorProto.FLOAT,
    "I64": TensorProto.INT64,
}
_INPUT_TYPES = {"float": TensorProto.FLOAT, "int": TensorProto.INT64}


class Graph:
    """A graph under construction. `files` are the weight files by their path in the folder."""

    def __init__(self, name: str, files: dict[str, WeightFile]) -> None:
        self.name, self.files = name, files
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._known: dict[tuple[object, ...], Value] = {}

    def input(self, name: str, kind: str, shape: Sequence[int | str]) -> Value:
        """A new input, "float" or "int"; a named dimension may have any size."""
        self._inputs.append(helper.make_tensor_value_info(name, _INPUT_TYPES[kind], list(shape)))
        return name

    def output(self, value: Value, name: str, shape: Sequence[int | str]) -> Value:
        """Makes `value`, an operator's float output, a graph output called `name`."""
        for node in self._nodes:
            for names in (node.input, node.output):
                for place, used in enumerate(names):
                    if used == value:
                        names[place] = name
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))
        return name

    def op(self, kind: str, *inputs: Value, domain: str = "", **attributes: object) -> Value:
        """The single result of an operator, from ONNX or another `domain`."""
        return self.several(kind, 1, *inputs, domain=domain, **attributes)[0]

    def several(
        self, kind: str, count: int, *inputs: Value, domain: str = "", **attributes: object
    ) -> list[Value]:
        """The `count` results of an operator."""
        names = [f"{kind}_{len(self._nodes)}_{i}" for i in range(count)]
        node = helper.make_node(kind, list(inputs), names, domain=domain or None)
        node.attribute.extend(helper.make_attribute(k, v) for k, v in sorted(attributes.items()))
        self._nodes.append(node)
        return names

    def constant(self, array: Shaped[np.ndarray, "..."] | np.generic) -> Value:
        """A constant stored in the graph itself."""
        array = np.asarray(array)
        key = ("constant", array.dtype.str, array.shape, array.tobytes())
        if key not in self._known:
            name = f"constant_{len(self._known)}"
            self._initializers.append(numpy_helper.from_array(array, name))
            self._known[key] = name
        return self._known[key]

    def number(self, value: float) -> Value:
        """A float constant."""
        return self.constant(np.float32(value))

    def ints(self, *values: int) -> Value:
        """A list of integers, as operators expect for shapes and axes."""
        return self.constant(np.array(values, np.int64))

    def has(self, file: str, name: str) -> bool:
        """Whether the weight file has a tensor of this name."""
        return name in self.files[file].tensors

    def shape_of(self, file: str, name: str) -> tuple[int, ...]:
        """The shape of a stored weight."""
        return self.files[file].tensors[name].shape

    def weight(self, file: str, name: str) -> Value:
        """A stored weight as float32.

        Raises:
            ConfigError: there is no such weight.
        """
        key = ("weight", file, name)
        if key in self._known:
            return self._known[key]
        stored = self.files[file].tensors.get(name)
        if stored is None:
            raise ConfigError(f"{self.files[file].path}: weight '{name}' is missing")
        tensor = TensorProto(name=f"{file}:{name}", data_type=_TYPES[stored.dtype])
        tensor.dims.extend(stored.shape)
        tensor.data_location = TensorProto.EXTERNAL
        place = {"location": file, "offset": stored.offset, "length": stored.size}
        for word, part in place.items():
            tensor.external_data.add(key=word, value=str(part))
        self._initializers.append(tensor)
        value: Value = tensor.name
        if stored.dtype != "F32":
            value = self.op("Cast", value, to=TensorProto.FLOAT)
        self._known[key] = value
        return value

    def linear(self, x: Value, file: str, name: str) -> Value:
        """`x` through the torch layer `name` (weight of shape [out, in]), with its bias if any."""
        y = self.op("MatMul", x, self.turned(self.weight(file, f"{name}.weight")))
        if self.has(file, f"{name}.bias"):
            y = self.op("Add", y, self.weight(file, f"{name}.bias"))
        return y

    def turned(self, matrix: Value) -> Value:
        """The transpose of a matrix."""
        return self.op("Transpose", matrix, perm=[1, 0])

    def layer_norm(self, x: Value, file: str, name: str, epsilon: float = 1e-5) -> Value:
        """torch's LayerNorm over the last axis."""
        scale, shift = (self.weight(file, f"{name}.{part}") for part in ("weight", "bias"))
        return self.op("LayerNormalization", x, scale, shift, axis=-1, epsilon=epsilon)

    def gelu(self, x: Value) -> Value:
        """torch's exact GELU."""
        half = self.op("Erf", self.op("Mul", x, self.number(0.5**0.5)))
        grown = self.op("Mul", x, self.op("Add", half, self.number(1.0)))
        return self.op("Mul", grown, self.number(0.5))

    def silu(self, x: Value) -> Value:
        """x times its sigmoid."""
        return self.op("Mul", x, self.op("Sigmoid", x))

    def unit(self, x: Value) -> Value:
        """torch's `normalize` over the last axis."""
        norm = self.op("ReduceL2", x, self.ints(-1), keepdims=1)
        return self.op("Div", x, self.op("Max", norm, self.number(1e-12)))

    def cut(
        self, x: Value, axis: int, start: int | Value, end: int | Value, step: int = 1
    ) -> Value:
        """A slice of `x` along one axis; bounds are integers, or values of one element."""
        bounds = [self.ints(v) if isinstance(v, int) else v for v in (start, end)]
        return self.op("Slice", x, *bounds, self.ints(axis), self.ints(step))

    def size(self, x: Value, axis: int) -> Value:
        """The size of `x` along an axis, as a value of one element."""
        return self.op("Shape", x, start=axis, end=axis + 1)

    def reshape(self, x: Value, *sides: int | Value) -> Value:
        """`x` reshaped; sizes are integers (0 keeps, -1 infers), or values of one element."""
        if all(isinstance(side, int) for side in sides):
            return self.op("Reshape", x, self.ints(*(int(side) for side in sides)))
        parts = [self.ints(side) if isinstance(side, int) else side for side in sides]
        return self.op("Reshape", x, self.op("Concat", *parts, axis=0))

    def model(self) -> onnx.ModelProto:
        """The finished graph."""
        graph = helper.make_graph(
            self._nodes, self.name, self._inputs, self._outputs, self._initializers
        )
        others = sorted({node.domain for node in self._nodes} - {""})
        opsets = [helper.make_opsetid("", OPSET), *(helper.make_opsetid(one, 1) for one in others)]
        return helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="earwitness"
        )

    def write(self, folder: Path) -> Path:
        """Writes the graph into `folder` and returns its path."""
        path = folder / f"{self.name}.onnx"
        draft = path.with_suffix(".onnx.new")
        draft.write_bytes(self.model().SerializeToString(deterministic=True))
        draft.replace(path)
        return path
