"""Opening the graphs of a model folder: strict, with weights from inside the folder only."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort

from earwitness.errors import CheckpointError, one_line
from earwitness.runtime.weights import WeightFile, not_finite
from earwitness.runtime.wire import External, external_weights

_FATAL = 4


@dataclass
class Sessions:
    """Opens graphs that share weight files.

    `places` says where the files that graphs name are: a part that two models share is in the
    folder of one of them. `threads` None: OMP_NUM_THREADS, or as many as the machine has cores.
    """

    places: dict[str, Path]
    threads: int | None = None

    def __post_init__(self) -> None:
        self.files: dict[str, WeightFile] = {}

    def weight_file(self, location: str) -> WeightFile:
        """The weight file that graphs call `location`. Raises CheckpointError."""
        if location not in self.files:
            self.files[location] = WeightFile(self.places[location])
        return self.files[location]

    def open(self, path: Path, digest: str, first: str) -> ort.InferenceSession:
        """A session of the graph at `path`, whose SHA-256 is `digest` and first input `first`.

        Raises:
            CheckpointError: it is missing, damaged or another graph, or its weights are missing,
                not those that it was written for, or outside of the folder.
        """
        session = self.of(read_known(path, digest), path)
        name = session.get_inputs()[0].name
        if name != first:
            raise CheckpointError(f"{path}: takes {name!r} as its first input; expected {first!r}")
        return session

    def of(self, model: bytes, path: Path) -> ort.InferenceSession:
        """A session of the graph with the bytes `model`, which came from `path`.

        Raises:
            CheckpointError: it is damaged, or its weights are missing, not those that it was
                written for, or outside of the folder.
        """
        try:
            weights = external_weights(model)
        except ValueError as error:
            raise CheckpointError(f"{path}: damaged, or not an ONNX file ({error})") from None
        options = self._options()
        arrays = [self._array(path, weight) for weight in weights]
        options.add_external_initializers([weight.name for weight in weights], arrays)
        try:
            session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no common base of their own
            reason = one_line(error)[:200]
            raise CheckpointError(f"{path}: onnxruntime cannot run it ({reason})") from None
        finally:
            for file in self.files.values():
                file.release()
        return session

    def _options(self) -> ort.SessionOptions:
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads or _threads()
        options.log_severity_level = _FATAL
        # An arena keeps its memory between calls: asking the system for fresh pages at every call
        # costs a tenth of the time. Memory patterns would reserve it again for every shape.
        options.enable_mem_pattern = False
        # Threads that spin while they wait slow down whoever decodes the next sounds.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return options

    def _array(self, path: Path, weight: External) -> ort.OrtValue:
        if weight.location not in self.places:
            raise CheckpointError(
                f"{path}: takes weights from {weight.location!r}; expected one of "
                f"{', '.join(sorted(self.places))} in its folder"
            )
        file = self.weight_file(weight.location)
        name = weight.name.partition(":")[2]
        stored = file.tensors.get(name)
        if stored is None:
            raise CheckpointError(f"{file.path}: weight '{name}' is missing, which {path} needs")
        # By name, not by the offset in the graph: a file that was saved again may be packed
        # differently.
        if (stored.dtype, stored.shape) != (weight.dtype, weight.shape):
            raise CheckpointError(
                f"{file.path}: weight '{name}' is {stored.dtype} of shape {list(stored.shape)}; "
                f"{path.name} was written for {weight.dtype} of shape {list(weight.shape)}; export "
                "the model again"
            )
        data = file.bytes_of(stored.offset, stored.size)
        if not_finite(weight.dtype, data):
            raise CheckpointError(f"{file.path}: weight '{name}' holds numbers that are not finite")
        kinds = {"F16": np.float16, "F32": np.float32, "I64": np.int64}
        if weight.dtype in kinds:
            array = data.view(kinds[weight.dtype]).reshape(weight.shape)
            return ort.OrtValue.ortvalue_from_numpy(array)
        words = data.view(np.uint16).reshape(weight.shape)
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(words, 16)


def computed(
    session: ort.InferenceSession, outputs: list[str], inputs: dict[str, np.ndarray]
) -> list[np.ndarray]:
    """The `outputs` of a graph."""
    return [np.asarray(value) for value in session.run(outputs, inputs)]


def _threads() -> int:
    """The number of threads in OMP_NUM_THREADS, as in torch; 0, all cores, if it is not set."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdecimal() else 0


def read_known(path: Path, digest: str) -> bytes:
    """The bytes of the file at `path`, whose SHA-256 runtime.json states.

    Raises:
        CheckpointError: it is missing, or its SHA-256 is not `digest`.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    if hashlib.sha256(data).hexdigest() != digest:
        raise CheckpointError(
            f"{path}: damaged, or not the file that runtime.json describes; export the model again"
        )
    return data
