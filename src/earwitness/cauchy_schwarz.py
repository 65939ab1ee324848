"""The Cauchy-Schwarz divergence of two clouds of vectors: its formula, kernel and kernel width.

The one definition shared by LAMB's aligner (PyTorch) and the modality-gap report (NumPy): it uses
only arithmetic that both support. The divergence is that of Jenssen et al. (2006) as estimated by
CS-Aligner (arXiv 2502.17028), whose sums include each point paired with itself:

    D_CS = log mean k(x, x') + log mean k(y, y') - 2 log mean k(x, y)
    k(a, b) = exp(-||a - b||^2 / (2 sigma^2))

LAMB does not say how wide its kernel is. We take sigma^2 = median ||x_i - y_j||^2 / 2 over the
pairs between the two clouds, using the lower of the two middle values if their number is even.
Pairs within a cloud are left out: while one cloud is still a single point, as LAMB's audio tokens
are at the start of training, most pairs would lie within that point, and a median over all pairs
would shrink the kernel to it.
"""

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    import torch

    Values = TypeVar("Values", torch.Tensor, np.ndarray, float)
else:  # the types checked at run time must not import torch
    Values = TypeVar("Values")

SMALLEST_WIDTH = 1e-6
"""lower bound of sigma^2: coinciding clouds have a median of 0"""


def squared_width(median: Values) -> Values:
    """sigma^2 from the median squared distance between the clouds, before the bound."""
    return median / 2


def log_kernel(squared: Values, width: Values | float) -> Values:
    """log k of squared distances; `width` is sigma^2."""
    return -squared / (2 * width)


def divergence(log_xx: Values, log_yy: Values, log_xy: Values) -> Values:
    """D_CS from the logarithms of the three mean kernels; 0 for equal clouds, never negative."""
    return log_xx + log_yy - 2 * log_xy
