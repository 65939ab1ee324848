from collections.abc import Sequence

import numpy as np

def lfilter(
    b: Sequence[float] | np.ndarray, a: Sequence[float] | np.ndarray, x: np.ndarray
) -> np.ndarray: ...
