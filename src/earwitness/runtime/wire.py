"""The few facts of an ONNX file that must be known before onnxruntime opens it: which weights it
takes from which other files.

ONNX files are protocol buffers (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto); reading
three of their fields needs no library.
"""

from collections.abc import Iterator
from typing import NamedTuple

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_GRAPH, _INITIALIZER = 7, 5
_NAME, _DIMS, _DATA_TYPE, _EXTERNAL_DATA, _DATA_LOCATION = 8, 1, 2, 13, 14
DTYPES = {1: "F32", 7: "I64", 10: "F16", 16: "BF16"}
"""`TensorProto.DataType` by safetensors' names"""


class External(NamedTuple):
    """A weight that an ONNX file takes from another file; `location` is a path in its folder."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    location: str
    offset: int
    size: int


def external_weights(model: bytes) -> list[External]:
    """The weights outside of the ONNX file whose bytes are `model`.

    Raises:
        ValueError: these are not the bytes of an ONNX file, or a weight does not say where it
            is stored.
    """
    view = memoryview(model)
    graphs = [value for field, value in _fields(view) if field == _GRAPH]
    if len(graphs) != 1 or not isinstance(graphs[0], memoryview):
        raise ValueError("it holds no graph")
    found: list[External] = []
    for field, value in _fields(graphs[0]):
        if field == _INITIALIZER and isinstance(value, memoryview):
            weight = _external(value)
            if weight is not None:
                found.append(weight)
    return found


def _external(tensor: memoryview) -> External | None:
    name, data_type, dims, entries, outside = "", 0, list[int](), dict[str, str](), False
    for field, value in _fields(tensor):
        if isinstance(value, int):
            data_type = value if field == _DATA_TYPE else data_type
            outside = outside or (field == _DATA_LOCATION and value == 1)
            dims += [value] if field == _DIMS else []
        elif field == _NAME:
            name = str(value, "utf-8")
        elif field == _DIMS:
            dims += _packed(value)
        elif field == _EXTERNAL_DATA:
            pair = {f: str(v, "utf-8") for f, v in _fields(value) if isinstance(v, memoryview)}
            entries[pair.get(1, "")] = pair.get(2, "")
    if not (outside or entries):
        return None
    if not {"location", "offset", "length"} <= set(entries):
        raise ValueError(f"weight '{name}' does not say where it is stored")
    place = int(entries["offset"]), int(entries["length"])
    dtype = DTYPES.get(data_type, str(data_type))
    return External(name, dtype, tuple(dims), entries["location"], *place)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) of each entry of a message."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        kind = key & 7
        if kind == _VARINT:
            value, place = _varint(message, place)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            size, place = _varint(message, place)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError("it is damaged")
        if place + size > len(message):
            raise ValueError("it ends too early")
        yield key >> 3, message[place : place + size]
        place += size


def _packed(message: memoryview) -> list[int]:
    values, place = list[int](), 0
    while place < len(message):
        value, place = _varint(message, place)
        values.append(value)
    return values


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            raise ValueError("it ends too early")
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("it is damaged")
