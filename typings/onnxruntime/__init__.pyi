"""The part of onnxruntime that this repository uses; the package itself has no types."""

from collections.abc import Sequence

import numpy as np

__version__: str

class NodeArg:
    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> list[int | str | None]: ...
    @property
    def type(self) -> str: ...

class OrtValue:
    @staticmethod
    def ortvalue_from_numpy(
        numpy_obj: np.ndarray, device_type: str = ..., device_id: int = ...
    ) -> OrtValue: ...
    @staticmethod
    def ortvalue_from_numpy_with_onnx_type(
        data: np.ndarray, onnx_element_type: int
    ) -> OrtValue: ...
    def numpy(self) -> np.ndarray: ...

class SessionOptions:
    enable_mem_pattern: bool
    intra_op_num_threads: int
    log_severity_level: int

    def add_external_initializers(
        self,
        external_initializer_names: Sequence[str],
        external_initializer_values: Sequence[OrtValue],
    ) -> None: ...
    def add_session_config_entry(self, name: str, value: str) -> None: ...

class InferenceSession:
    def __init__(
        self,
        path_or_bytes: str | bytes,
        sess_options: SessionOptions | None = ...,
        providers: Sequence[str] | None = ...,
    ) -> None: ...
    def get_inputs(self) -> list[NodeArg]: ...
    def get_outputs(self) -> list[NodeArg]: ...
    def run(
        self, output_names: Sequence[str] | None, input_feed: dict[str, np.ndarray]
    ) -> list[np.ndarray]: ...
    def run_with_ort_values(
        self, output_names: Sequence[str] | None, input_dict_ort_values: dict[str, OrtValue]
    ) -> list[OrtValue]: ...
