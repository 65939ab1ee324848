"""The modality gap in numbers: how far sounds are from captions, before and after a bridge.

Works on any two arrays of paired embeddings; NumPy only, with SciPy and scikit-learn on demand.
"""

from earwitness.gap.files import load_captions, load_columns, load_vectors
from earwitness.gap.quantities import (
    BY_NAME,
    QUANTITIES,
    TOKEN_QUANTITIES,
    Definition,
    markdown_table,
    written_range,
)
from earwitness.gap.report import GapReport, Quantity, measure, token_gap

__all__ = [
    "BY_NAME",
    "QUANTITIES",
    "TOKEN_QUANTITIES",
    "Definition",
    "GapReport",
    "Quantity",
    "load_captions",
    "load_columns",
    "load_vectors",
    "markdown_table",
    "measure",
    "token_gap",
    "written_range",
]
