"""The gap report as one HTML file: it makes no requests, and supports light and dark mode."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from earwitness.errors import DataError
from earwitness.gap import BY_NAME, GapReport, Quantity, written_range
from earwitness.gap.plots import figures as drawing
from earwitness.templates import render, svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from earwitness.gap.plots.projection import Projection

# Inline SVG uses the page's colors, so that one picture serves light and dark mode.
_VARIABLES = {
    drawing.BLUE: "blue",
    drawing.ORANGE: "orange",
    drawing.GREEN: "green",
    drawing.PURPLE: "purple",
    drawing.SKY: "sky",
    drawing.INK: "ink",
    drawing.MUTED: "muted",
    drawing.FAINT: "faint",
}
_BETTER = {"up": "higher", "down": "lower", "to 1": "near 1"}


def number(value: float) -> str:
    """The number with as many decimals as its magnitude calls for."""
    places = 1 if abs(value) >= 100 else 3 if abs(value) >= 1 else 4
    return f"{value:.{places}f}"


def inline_svg(figure: "Figure", name: str) -> str:
    """The figure as an SVG element with the page's colors and unique ids."""
    import matplotlib as mpl

    stream = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'((?:\bid="|href="#|url\(#))', rf"\1{name}-", text)
    for color, variable in _VARIABLES.items():
        text = re.sub(color, f"var(--{variable})", text, flags=re.IGNORECASE)
    return text


def verdict(change: Quantity) -> str:
    """`better`, `worse` or `no clear change`; empty where closeness to 1 is what counts."""
    if change.direction == "to 1":
        return ""
    if change.low <= 0.0 <= change.high:
        return "no clear change"
    return "better" if (change.value > 0.0) == (change.direction == "up") else "worse"


def _rows(report: GapReport) -> list[dict[str, object]]:
    """One row per quantity with its value for each cloud."""
    rows: list[dict[str, object]] = []
    for name in dict.fromkeys(row.name for row in report.rows):
        values = [report.quantity(name, cloud) for cloud in report.clouds()]
        definition = BY_NAME[name]
        rows.append(
            {
                "definition": definition,
                "cells": values,
                "range": written_range(*values[0].range),
                "better": _BETTER[definition.direction],
            }
        )
    return rows


def _rounded(values: "Sequence[Sequence[float]]") -> list[list[float]]:
    return [[float(f"{number:.5g}") for number in row] for row in values]


def _clouds(
    projections: "Sequence[Projection]", captions: "Sequence[str] | None"
) -> dict[str, object]:
    """The data for the scatter plot's script."""
    first = projections[0]
    for other in projections[1:]:
        if list(other.clips) != list(first.clips):
            raise DataError("the projections show different clips; expected the clips of one seed")
    if captions is not None and len(captions) <= int(first.captions.max()):
        raise DataError(
            f"{len(captions)} captions, but row {int(first.captions.max())} is shown; "
            "expected one caption per text vector"
        )
    bridged = first.bridged_cosine
    return {
        "titles": {name: drawing.TITLES[name] for name in first.clouds()},
        "clips": first.clips.tolist(),
        "captions": None if captions is None else [captions[row] for row in first.captions],
        "cosine": first.cosine.round(4).tolist(),
        "bridgedCosine": None if bridged is None else bridged.round(4).tolist(),
        "views": [
            {
                "method": one.method,
                "axes": one.axes,
                "points": {name: _rounded(xy.tolist()) for name, xy in one.clouds().items()},
            }
            for one in projections
        ],
    }


def _summary(report: GapReport) -> str:
    length = "unit-length vectors" if report.normalized else "vectors of any length"
    return (
        f"{report.clips} clips, {report.captions} captions, {report.width} numbers per vector, "
        f"{length}, seed {report.seed}"
    )


def gap_page(
    report: GapReport,
    *,
    projections: "Sequence[Projection]" = (),
    captions: Sequence[str] | None = None,
    figures: "Mapping[str, tuple[Figure, str]] | None" = None,
    title: str = "The gap between sounds and captions",
) -> str:
    """The whole report as HTML text: warnings, clouds with captions on hover, numbers, figures.

    `captions` has one sentence per text vector. `figures` maps a short name to a figure and the
    sentence below it.

    Raises:
        DataError: captions and projections do not match.
        MissingDependencyError: Jinja2 is not installed.
    """
    columns = [cloud.capitalize() for cloud in report.clouds()]
    sigma = report.kernel_width
    return render(
        "gap.html",
        title=title,
        summary=_summary(report),
        warnings=report.warnings,
        clouds=_clouds(projections, captions) if projections else None,
        fallback=_drawn(drawing.draw_projection(projections[0]), "fallback") if projections else "",
        columns=columns if len(columns) > 1 else ["Value"],
        rows=_rows(report),
        figures=[(_drawn(one, name), text) for name, (one, text) in (figures or {}).items()],
        kernel="" if sigma is None else f" of width sigma = {sigma:.4g}",
        number=number,
        verdict=verdict,
    )


def _drawn(figure: "Figure", name: str) -> str:
    return svg(inline_svg(figure, name))
