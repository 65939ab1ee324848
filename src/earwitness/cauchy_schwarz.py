"""The Cauchy-Schwarz divergence of two clouds of vectors: its formula, kernel and kernel width.

The one definition that LAMB's aligner (PyTorch) and the modality-gap report (NumPy) share: only
arithmetic that both know. The divergence is that of Jenssen et al. (2006) as estimated by
CS-Aligner (arXiv 2502.17028), whose sums keep the pairs of a point with itself:

    D_CS = log mean k(x, x') + log mean k(y, y') - 2 log mean k(x, y)
    k(a, b) = exp(-||a - b||^2 / (2 sigma^2))

LAMB does not say how wide its kernel is. We take sigma^2 = median ||x_i - y_j||^2 / 2 over the
pairs between the two clouds, the lower of the two middle values where their number is even. The
pairs within a cloud are left out: while one cloud is still a point, as LAMB's audio tokens are
at the start of training, most of all pairs are pairs of that spot, and a median over all would
shrink the kernel to it.
"""

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    import torch

    Values = TypeVar("Values", torch.Tensor, np.ndarray, float)
else:  # what is checked at run time must not import torch
    Values = TypeVar("Values")

SMALLEST_WIDTH = 1e-6
"""bound of sigma^2 from below: coinciding clouds have a median of 0"""


def squared_width(median: Values) -> Values:
    """sigma^2 from the median squared distance between the clouds, before the bound."""
    return median / 2


def log_kernel(squared: Values, width: Values | float) -> Values:
    """log k of squared distances; `width` is sigma^2."""
    return -squared / (2 * width)


def divergence(log_xx: Values, log_yy: Values, log_xy: Values) -> Values:
    """D_CS from the logarithms of the three mean kernels; 0 for equal clouds, never negative."""
    return log_xx + log_yy - 2 * log_xy
