"""The gap report as one HTML file: no request leaves it, and it follows a light or dark screen."""

import io
import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

from earwitness.errors import DataError
from earwitness.gap import BY_NAME, GapReport, Quantity, written_range
from earwitness.gap.plots import figures as drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from earwitness.gap.plots.projection import Projection

# Inline SVG takes the page's colours, so that one picture serves light and dark screens.
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


def _template(name: str) -> Template:
    return Template(files("earwitness.gap.plots").joinpath(name).read_text(encoding="utf-8"))


def number(value: float) -> str:
    """The number with as many places as its size calls for."""
    places = 1 if abs(value) >= 100 else 3 if abs(value) >= 1 else 4
    return f"{value:.{places}f}"


def inline_svg(figure: "Figure", name: str) -> str:
    """The figure as an SVG element with the page's colours and ids of its own."""
    import matplotlib as mpl

    stream = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'((?:\bid="|href="#|url\(#))', rf"\1{name}-", svg)
    for color, variable in _VARIABLES.items():
        svg = re.sub(color, f"var(--{variable})", svg, flags=re.IGNORECASE)
    return svg


def verdict(change: Quantity) -> str:
    """`better`, `worse` or `no clear change`; nothing where nearness to 1 decides."""
    if change.direction == "to 1":
        return ""
    if change.low <= 0.0 <= change.high:
        return "no clear change"
    return "better" if (change.value > 0.0) == (change.direction == "up") else "worse"


def _cell(row: Quantity, note: str = "") -> str:
    said = f" <strong>{note}</strong>" if note else ""
    return (
        f'<td class="number">{number(row.value)}{said}'
        f"<small>{number(row.low)} to {number(row.high)}</small></td>"
    )


def _table(report: GapReport) -> tuple[str, str]:
    """The cells of the head and the rows of the table."""
    clouds = report.clouds()
    titles = [cloud.capitalize() for cloud in clouds] if len(clouds) > 1 else ["Value"]
    columns = ["Quantity", *titles, "Range", "Better", "Meaning"]
    head = "".join(f'<th scope="col">{column}</th>' for column in columns)
    lines = []
    for name in dict.fromkeys(row.name for row in report.rows):
        definition, first = BY_NAME[name], report.quantity(name, report.rows[0].cloud)
        cells = [f'<th scope="row">{escape(definition.title)}</th>']
        for cloud in clouds:
            row = report.quantity(name, cloud)
            cells.append(_cell(row, verdict(row) if cloud == "change" else ""))
        cells.append(f'<td class="number">{written_range(*first.range)}</td>')
        cells.append(f"<td>{_BETTER[definition.direction]}</td>")
        cells.append(f'<td class="meaning">{escape(definition.meaning)}</td>')
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return head, "\n".join(lines)


def _definitions(report: GapReport) -> str:
    entries = []
    for name in dict.fromkeys(row.name for row in report.rows):
        definition, row = BY_NAME[name], report.quantity(name, report.rows[0].cloud)
        entries.append(
            f"<dt>{escape(definition.title)}</dt><dd><code>{escape(definition.formula)}</code><br>"
            f"{escape(definition.meaning)} <small>Source: {escape(definition.source)}. "
            f"Interval: {escape(row.interval)}.</small></dd>"
        )
    return "\n".join(entries)


def _script_json(value: object) -> str:
    """JSON that cannot end the script element around it."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False).replace("<", "\\u003c")


def _rounded(values: "Sequence[Sequence[float]]") -> list[list[float]]:
    return [[float(f"{number:.5g}") for number in row] for row in values]


def _scatter(projections: "Sequence[Projection]", captions: "Sequence[str] | None") -> str:
    first = projections[0]
    for other in projections[1:]:
        if list(other.clips) != list(first.clips):
            raise DataError("projections of different clips; accepted are those of one seed")
    if captions is not None and len(captions) <= int(first.captions.max()):
        raise DataError(
            f"{len(captions)} captions, but row {int(first.captions.max())} is shown; "
            "accepted is one caption for every text vector"
        )
    data = {
        "titles": {name: drawing.TITLES[name] for name in first.clouds()},
        "clips": first.clips.tolist(),
        "captions": None if captions is None else [captions[row] for row in first.captions],
        "cosine": first.cosine.round(4).tolist(),
        "bridgedCosine": None
        if first.bridged_cosine is None
        else first.bridged_cosine.round(4).tolist(),
        "views": [
            {
                "method": one.method,
                "axes": one.axes,
                "points": {name: _rounded(xy.tolist()) for name, xy in one.clouds().items()},
            }
            for one in projections
        ],
    }
    fallback = inline_svg(drawing.draw_projection(first), "fallback")
    return _template("scatter.html").substitute(data=_script_json(data), fallback=fallback)


def _summary(report: GapReport) -> str:
    length = "vectors at length one" if report.normalized else "vectors at their own length"
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
    sentence under it. Raises DataError where captions and projections do not belong together.
    """
    drawn = [
        f"<figure>{inline_svg(figure, name)}<figcaption>{escape(said)}</figcaption></figure>"
        for name, (figure, said) in (figures or {}).items()
    ]
    head, rows = _table(report)
    sigma = report.kernel_width
    return _template("page.html").substitute(
        title=escape(title),
        summary=escape(_summary(report)),
        warnings="\n".join(
            f'<p class="warning"><strong>Warning.</strong> {escape(said)}.</p>'
            for said in report.warnings
        ),
        scatter=_scatter(projections, captions) if projections else "",
        head=head,
        rows=rows,
        figures=f'<h2>Pictures</h2><div class="figures">{"".join(drawn)}</div>' if drawn else "",
        kernel="" if sigma is None else f" of width sigma = {sigma:.4g}",
        definitions=_definitions(report),
    )
