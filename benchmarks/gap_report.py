"""The tables and the figure of `gap_gain.py`, from its cells.

A score is the mean over training seeds, and within a seed over the seeds of a bridge's noise.
Intervals are 95 %: a hierarchical bootstrap over clips and training seeds, drawn alike for both
systems of a comparison, which share a seed's space. p is corrected by Holm within a table.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from gap_spaces import RECORDINGS, TITLES
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from earwitness.evaluation import evaluate
from earwitness.io.atomic import replacing
from earwitness.models.weights import read_json
from earwitness.statistics import (
    Statistic,
    draw_seeds,
    holm,
    interval,
    over_seeds,
    replicates,
    shifted_test,
    value,
)

DRAWS = 2000
BASE = "none"
EQUAL_BRIDGES = (BASE, "regressor", "Diffusion-Link")
PAPER = 1.525
"""CIDEr with the bridge over CIDEr without, zero-shot: the paper's abstract"""
STYLES = {
    "Diffusion-Link": ("#D55E00", "o"),
    "regressor": ("#0072B2", "s"),
    "regressor, five captions": ("#56B4E9", "D"),
    "mean shift": ("#009E73", "^"),
    "noise injection": ("#CC79A7", "v"),
    "text memory": ("#222222", "P"),
}

Seeds = list[dict]
"""a row's cells, one per training seed"""


class Gain(NamedTuple):
    """A score, and its ratio to that of the base, in percent above it."""

    score: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float
    p: float


def report(cells: Path, images: Path) -> str:
    """The gains in Markdown; draws the figure."""
    references = read_json(cells / "references.json")
    gains = rows_of(cells, "gain")
    table = gain_table(gains, RECORDINGS, references[RECORDINGS])
    draw(table.points, images / "gap-gain.svg")
    picture = "![CIDEr-D with a bridge over CIDEr-D without](images/gap-gain.svg)"
    return f"## Gain against the gap\n\n{picture}\n\n{table.text}"


def equal_report(cells: Path) -> str:
    """The tables of the comparison at equal pairs."""
    references = read_json(cells / "references.json")[RECORDINGS]
    equal, recipe = (_in_order(rows_of(cells, part)) for part in ("equal", "recipe"))
    parts = {"Captions": equal_table(equal, RECORDINGS, references)}
    if recipe:
        parts["Captions at the full recipe"] = equal_table(recipe, RECORDINGS, references)
    parts["Updates of a bridge"] = updates_table(equal)
    return "\n".join(f"## {title}\n\n{table}" for title, table in parts.items())


def publish(text: str, path: Path) -> None:
    """Prints a page and writes it to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(text)


def _in_order(rows: Mapping[str, Seeds]) -> dict[str, Seeds]:
    """By the number of pairs, then by bridge, zero-shot first."""

    def place(item: tuple[str, Seeds]) -> tuple[int, int, bool]:
        pairs, _, rest = item[0].partition("/")
        bridge = rest.rpartition("/")[2]
        [kind] = [n for n, name in enumerate(EQUAL_BRIDGES) if bridge.startswith(name)]
        return int(pairs), kind, rest.startswith("supervised")

    return dict(sorted(rows.items(), key=place))


def rows_of(cells: Path, folder: str) -> dict[str, Seeds]:
    """Row -> its cells, of the seeds that are finished; those of the comparisons at equal pairs
    carry their number of pairs.
    """
    seeds: dict[str, list[Path]] = {}
    for path in sorted((cells / folder).glob("*.json")):
        seeds.setdefault(path.stem.rpartition("-")[2], []).append(path)
    most = max(map(len, seeds.values()), default=0)
    found: dict[str, Seeds] = {}
    for paths in seeds.values():
        for path in paths if len(paths) == most else ():
            pairs = "" if folder == "gain" else f"{path.stem.split('-')[0]}/"
            for name, cell in read_json(path).items():
                found.setdefault(f"{pairs}{name}", []).append(cell)
    return found


class Scores:
    """CIDEr-D of many rows on one set, under the same resamples."""

    def __init__(self, rows: Mapping[str, Seeds], name: str, references: list[list[str]]) -> None:
        clips = len(references)
        self.values: dict[str, list[float]] = {}
        self.draws: dict[str, np.ndarray] = {}
        for row, seeds in rows.items():
            groups = [[_cider(said, references) for said in cell[name]] for cell in seeds]
            self.values[row] = [float(np.mean([value(s, clips) for s in g])) for g in groups]
            self.draws[row] = np.stack(
                [replicates(group, clips, DRAWS, 0).mean(0) for group in groups]
            )

    def gain(self, row: str, base: str) -> Gain:
        """`row` against `base`; both have the same training seeds."""
        mine, theirs = self.values[row], self.values[base]
        drawn = draw_seeds(len(mine), DRAWS, np.random.default_rng(1))
        first, second = (over_seeds(self.draws[name], drawn) for name in (row, base))
        score = float(np.mean(mine)), *interval(first)
        if row == base:
            return Gain(*score, 0.0, 0.0, 0.0, 1.0)
        # A base without any word of the references would leave no ratio.
        least = max(float(np.mean(theirs)), 1e-9)
        ratios = 100 * (first / np.maximum(second, 1e-9) - 1)
        p = shifted_test(first - second, float(np.mean(mine) - np.mean(theirs)))
        return Gain(*score, 100 * (score[0] / least - 1), *interval(ratios), p)


def _cider(said: list[str], references: list[list[str]]) -> Statistic:
    return evaluate(said, references, metrics=["cider_d"], resamples=0).statistics["cider_d"]


class GainTable(NamedTuple):
    """The table, and its points: row -> (gap, gain, whether an offset made the gap)."""

    text: str
    points: dict[str, list[tuple[float, Gain, bool]]]


def gain_table(rows: Mapping[str, Seeds], name: str, references: list[list[str]]) -> GainTable:
    """Every space and row with its gain over no bridge in that space."""
    scores = Scores(rows, name, references)
    gaps = {row: _mean(seeds, "gap", name, "centroid_distance") for row, seeds in rows.items()}
    order = sorted(rows, key=lambda row: (gaps[row], row.split("/")[0], row.split("/")[1] != BASE))
    found = {row: scores.gain(row, f"{row.split('/')[0]}/{BASE}") for row in order}
    corrected = _corrected(found, BASE)
    lines = [
        "| space | gap | row | gap behind it | CIDEr-D | gain, % | p (Holm) |",
        "|---|---|---|---|---|---|---|",
    ]
    points: dict[str, list[tuple[float, Gain, bool]]] = {}
    for row, gain in found.items():
        space, kind = row.split("/")
        made = f"offset to {space.split('+')[1]}" if "+" in space else "trained"
        after = _mean(rows[row], "after", name, "centroid_distance")
        lines.append(
            f"| {made} | {gaps[row]:.2f} | {kind} | {after:.2f} | {_score(gain)} | "
            f"{_percent(gain, kind, BASE)} | {corrected[row]} |"
        )
        points.setdefault(kind, []).append((gaps[row], gain, "+" in space))
    return GainTable("\n".join(lines) + "\n", points)


def updates_table(rows: Mapping[str, Seeds]) -> str:
    """Paired cosine and t* by the number of a bridge's updates."""
    lines = [
        "| pairs | bridge | updates | paired cosine, recordings | scenes | t* by seed |",
        "|---|---|---|---|---|---|",
    ]
    for row, seeds in rows.items():
        pairs, _, rest = row.partition("/")
        kind, _, updates = rest.rpartition(" ")
        if not updates.isdigit():
            continue
        cosines = [
            f"{_mean(seeds, 'gap', name, 'paired_cosine'):.3f} ({min(v):.3f} to {max(v):.3f})"
            for name in TITLES
            for v in [[cell["gap"][name]["paired_cosine"] for cell in seeds]]
        ]
        starts = ", ".join(str(cell["start"]) for cell in seeds if "start" in cell)
        numbers = f"{int(pairs):,} | {kind} | {int(updates):,}"
        lines.append(f"| {numbers} | {' | '.join(cosines)} | {starts} |")
    return "\n".join(lines) + "\n"


def equal_table(rows: Mapping[str, Seeds], name: str, references: list[list[str]]) -> str:
    """Both protocols; a supervised gain is only interpreted if supervised beats zero-shot."""
    captioned = {row: seeds for row, seeds in rows.items() if row.count("/") == 2}
    scores = Scores(captioned, name, references)
    found: dict[str, Gain] = {}
    for row in captioned:
        pairs, protocol, kind = row.split("/")
        base = f"{pairs}/{protocol}/{BASE}"
        if row == f"{pairs}/supervised/{BASE}":
            base = f"{pairs}/zero-shot/{BASE}"
        found[row] = scores.gain(row, base)
    corrected = _corrected(found, f"zero-shot/{BASE}")
    lines = [
        "| pairs | protocol | bridge | CIDEr-D | gain, % | p (Holm) |",
        "|---|---|---|---|---|---|",
    ]
    for row, gain in found.items():
        pairs, protocol, kind = row.split("/")
        read = protocol == "zero-shot" or kind == BASE
        supervised = found.get(f"{pairs}/supervised/{BASE}")
        beats = supervised is not None and supervised.gain_low > 0
        told = _percent(gain, f"{protocol}/{kind}", f"zero-shot/{BASE}")
        if protocol == "supervised" and kind == BASE:
            told += " over zero-shot"
        if not read and not beats:
            told = f"({told}, not interpreted)"
        lines.append(
            f"| {int(pairs):,} | {protocol} | {kind} | {_score(gain)} | {told} | {corrected[row]} |"
        )
    return "\n".join(lines) + "\n"


def _corrected(found: Mapping[str, Gain], base: str) -> dict[str, str]:
    tested = [row for row in found if not row.endswith(f"/{base}")]
    ps = holm([found[row].p for row in tested])
    shown = {row: f"{p:.3f}" for row, p in zip(tested, ps, strict=True)}
    return {row: shown.get(row, "") for row in found}


def _mean(seeds: Seeds, when: str, name: str, quantity: str) -> float:
    return float(np.mean([cell[when][name][quantity] for cell in seeds]))


def _score(gain: Gain) -> str:
    return f"{gain.score:.3f} [{gain.low:.3f}, {gain.high:.3f}]"


def _percent(gain: Gain, kind: str, base: str) -> str:
    if kind == base:
        return ""
    return f"{gain.gain:+.0f} [{gain.gain_low:+.0f}, {gain.gain_high:+.0f}]"


def draw(points: Mapping[str, list[tuple[float, Gain, bool]]], path: Path) -> None:
    """The figure: CIDEr-D with a bridge over CIDEr-D without, against the gap."""
    figure = Figure(figsize=(7.2, 4.8), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(1, color="#666666", linewidth=0.8)
    axes.axhline(PAPER, color="#BBBBBB", linewidth=0.8, linestyle="--")
    for number, kind in enumerate(STYLES):
        for offset in (False, True):
            _line(axes, points.get(kind, ()), kind, offset, number)
    axes.set_yscale("log")
    ticks = [0.5, 1, 2, 4]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("distance of the centroids of audio and text; hollow: by an added offset")
    axes.set_ylabel("CIDEr-D with a bridge / without")
    axes.grid(color="#BBBBBB", linewidth=0.5, alpha=0.5)
    axes.annotate(
        "the paper's zero-shot gain", (0.01, PAPER), xycoords=("axes fraction", "data"),
        fontsize=7, va="bottom", color="#666666",
    )  # fmt: skip
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft:
        figure.savefig(draft, format="svg")


def _line(
    axes: Axes, points: Sequence[tuple[float, Gain, bool]], kind: str, offset: bool, number: int
) -> None:
    """The points of a row whose gap came from training, or from an offset (hollow)."""
    color, marker = STYLES[kind]
    chosen = [(x, gain) for x, gain, made in points if made == offset]
    if not chosen:
        return
    ratios = np.array([[1 + v / 100 for v in g[3:6]] for _, g in chosen]).clip(0.02)
    middle, low, high = ratios.T
    axes.errorbar(
        [x + 0.006 * (number - 2.5) for x, _ in chosen], middle, [middle - low, high - middle],
        color=color, marker=marker, markersize=5, linewidth=1.2, elinewidth=0.7,
        linestyle=":" if offset else "-", markerfacecolor="white" if offset else color,
        label=None if offset else kind,
    )  # fmt: skip


if __name__ == "__main__":
    raise SystemExit("run gap_gain.py --report")
