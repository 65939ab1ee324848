"""Matplotlib figures of the gap, in Okabe and Ito's colors, which markers and line styles repeat.

Figures are made without pyplot, so no global state changes and no display is needed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from earwitness.errors import DataError, MissingDependencyError, pip_install
from earwitness.gap.plots.projection import first_captions, project, unit
from earwitness.io.atomic import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from earwitness.gap.plots.projection import Projection

BLUE, ORANGE, GREEN, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9"
INK, MUTED, FAINT = "#222222", "#666666", "#BBBBBB"
STYLES = {"audio": (BLUE, "o"), "text": (ORANGE, "D"), "bridged": (GREEN, "^")}
TITLES = {"audio": "audio", "text": "text", "bridged": "bridged audio"}
Numbers = Sequence[float] | Sequence[int] | np.ndarray
_SIZE = (6.4, 4.2)
_DPI = 160
_BINS = 60


def _new(xlabel: str, ylabel: str) -> "tuple[Figure, Axes]":
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            f"figures need matplotlib; install it with: {pip_install('plots')}"
        ) from error
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(xlabel, color=INK)
    axes.set_ylabel(ylabel, color=INK)
    axes.tick_params(colors=MUTED)
    axes.grid(color=FAINT, linewidth=0.5, alpha=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(MUTED)
    return figure, axes


def _legend(axes: "Axes") -> None:
    axes.legend(frameon=False, labelcolor=INK)


def draw_projection(projection: "Projection") -> "Figure":
    """The figure of an existing projection: points, and a line within each pair."""
    from matplotlib.collections import LineCollection

    figure, axes = _new(*projection.axes)
    end = projection.audio if projection.bridged is None else projection.bridged
    lines = np.stack([end, projection.text], axis=1)
    axes.add_collection(LineCollection(list(lines), colors=MUTED, linewidths=0.5, alpha=0.35))
    for name, points in projection.clouds().items():
        color, marker = STYLES[name]
        axes.scatter(
            points[:, 0], points[:, 1], s=16, c=color, marker=marker, label=TITLES[name],
            alpha=0.8, linewidths=0,
        )  # fmt: skip
    joined = TITLES["audio" if projection.bridged is None else "bridged"]
    axes.set_title(
        f"{len(projection.clips)} pairs, {projection.method.upper()}; lines join {joined} and text",
        color=INK,
        fontsize=10,
    )
    figure.legend(loc="outside lower center", ncols=3, frameon=False, labelcolor=INK)
    return figure


def projection_figure(
    audio: Float[np.ndarray, "N C"],
    text: Float[np.ndarray, "M C"],
    bridged: Float[np.ndarray, "N C"] | None = None,
    *,
    owner: Int[np.ndarray, " M"] | None = None,
    method: str = "pca",
    shown: int = 300,
    seed: int = 0,
) -> "Figure":
    """Audio, text and bridged audio in the PCA or UMAP plane, with lines between pairs."""
    projection = project(audio, text, bridged, owner=owner, method=method, shown=shown, seed=seed)
    return draw_projection(projection)


def histogram_figure(
    audio: Float[np.ndarray, "N C"],
    text: Float[np.ndarray, "M C"],
    bridged: Float[np.ndarray, "N C"] | None = None,
    *,
    owner: Int[np.ndarray, " M"] | None = None,
    seed: int = 0,
) -> "Figure":
    """Cosines of pairs (filled) and of random other captions (outline), before and after a bridge.

    One caption per clip. The other captions are the clips' own, permuted without fixed points.
    """
    captions = unit(text[first_captions(owner, len(audio))])
    turned = np.random.default_rng(seed).permutation(len(captions))
    other = np.empty(len(captions), np.int64)
    other[turned] = np.roll(turned, 1)
    figure, axes = _new("cosine", "share of pairs per bin")
    clouds = {"audio": audio} if bridged is None else {"audio": audio, "bridged": bridged}
    cosines = {}
    for name, cloud in clouds.items():
        sounds = unit(cloud)
        own, others = np.sum(sounds * captions, axis=1), np.sum(sounds * captions[other], axis=1)
        cosines[name] = (own, others)
    every = np.concatenate([part for both in cosines.values() for part in both])
    bins = np.linspace(every.min(), every.max() + 1e-9, _BINS + 1)
    for name, (own, others) in cosines.items():
        color, weight = STYLES[name][0], np.full(len(own), 1.0 / len(own))
        dashes, label = ("--" if name == "audio" else ":"), TITLES[name]
        axes.hist(own, bins, weights=weight, color=color, alpha=0.45, label=f"{label}: pairs")
        axes.hist(
            others, bins, weights=weight, histtype="step", color=color, linestyle=dashes,
            linewidth=1.6, label=f"{label}: other captions",
        )  # fmt: skip
    _legend(axes)
    return figure


def _series(axes: "Axes", index: int, x: np.ndarray, y: np.ndarray, label: str) -> str:
    colors, markers = (BLUE, ORANGE, GREEN, PURPLE, SKY), "oD^sv"
    color = colors[index % len(colors)]
    style = ("-", "--", "-.", ":")[index % 4]
    marker = markers[index % len(markers)]
    every = max(1, len(x) // 20)
    axes.plot(
        x, y, color=color, marker=marker, linestyle=style, markersize=5, linewidth=1.6,
        markevery=every, label=label,
    )  # fmt: skip
    return color


def sweep_figure(
    t_stars: Numbers,
    steps: Numbers,
    values: Numbers,
    intervals: Sequence[tuple[float, float]] | None = None,
    *,
    quantity: str = "paired cosine",
) -> "Figure":
    """A quantity against the start time t*, one line per number of sampling steps.

    All sequences have the same length: point i was measured at `t_stars[i]` with `steps[i]`.
    """
    given = (t_stars, steps, values) if intervals is None else (t_stars, steps, values, intervals)
    lengths = {len(part) for part in given}
    if len(lengths) != 1 or not len(values):
        raise DataError(f"a sweep of {sorted(lengths)} entries; expected equal lengths above 0")
    t, k, v = np.asarray(t_stars), np.asarray(steps), np.asarray(values, np.float64)
    figure, axes = _new("start time t*", quantity)
    for index, count in enumerate(np.unique(k)):
        rows = np.flatnonzero(k == count)
        rows = rows[np.argsort(t[rows], kind="stable")]
        label = f"{count} step" if count == 1 else f"{count} steps"
        color = _series(axes, index, t[rows], v[rows], label)
        if intervals is not None:
            ends = np.asarray(intervals, np.float64)[rows]
            axes.fill_between(t[rows], ends[:, 0], ends[:, 1], color=color, alpha=0.18, linewidth=0)
    _legend(axes)
    return figure


def training_curve_figure(
    steps: Numbers,
    values: Numbers | Mapping[str, Numbers],
    *,
    quantity: str = "paired cosine",
) -> "Figure":
    """A quantity, or several by name, against the training steps."""
    curves = values if isinstance(values, Mapping) else {quantity: values}
    if not len(steps) or any(len(curve) != len(steps) for curve in curves.values()):
        raise DataError(
            f"{len(steps)} steps for curves of {[len(c) for c in curves.values()]} values; "
            "expected equal lengths above 0"
        )
    figure, axes = _new("training step", quantity)
    for index, (name, curve) in enumerate(curves.items()):
        _series(axes, index, np.asarray(steps), np.asarray(curve, np.float64), name)
    if len(curves) > 1:
        _legend(axes)
    return figure


def save_figures(figures: "Mapping[str, Figure]", folder: str | Path) -> list[Path]:
    """Writes each figure as NAME.png and NAME.svg to `folder`; equal figures give equal bytes."""
    import matplotlib as mpl

    place = Path(folder)
    written = []
    for name, figure in figures.items():
        with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
            with replacing(place / f"{name}.png") as file:
                figure.savefig(file, format="png", dpi=_DPI)
            with replacing(place / f"{name}.svg") as file:
                figure.savefig(file, format="svg", metadata={"Date": None})
        written += [place / f"{name}.png", place / f"{name}.svg"]
    return written
