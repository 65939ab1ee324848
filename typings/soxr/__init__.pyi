"""The part of soxr that this repository uses; the package itself has no types."""

import numpy as np

class ResampleStream:
    def __init__(
        self,
        in_rate: float,
        out_rate: float,
        num_channels: int,
        dtype: str = ...,
        quality: str = ...,
    ) -> None: ...
    def resample_chunk(self, x: np.ndarray, last: bool = ...) -> np.ndarray: ...

def resample(x: np.ndarray, in_rate: float, out_rate: float, quality: str = ...) -> np.ndarray: ...
