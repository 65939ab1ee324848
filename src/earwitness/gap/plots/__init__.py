"""Pictures of the modality gap: matplotlib figures and one self-contained HTML page."""

from earwitness.gap.plots.figures import (
    histogram_figure,
    projection_figure,
    save_figures,
    sweep_figure,
    training_curve_figure,
)
from earwitness.gap.plots.page import gap_page
from earwitness.gap.plots.projection import Projection, project

__all__ = [
    "Projection",
    "gap_page",
    "histogram_figure",
    "project",
    "projection_figure",
    "save_figures",
    "sweep_figure",
    "training_curve_figure",
]
