"""The comparison of bridges in Markdown, the sweep as a figure, from the cells of link_table."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from earwitness.evaluation import Difference, Evaluation, compare, evaluate, pool
from earwitness.gap.plots.figures import save_figures, sweep_figure
from earwitness.models.weights import read_json

SETS = {"dev": "development recordings", "heldout": "held-out scenes"}
PAPER = {"zero_shot": 52.5, "supervised": 7.5}
"""relative gain of CIDEr in the paper's abstract, in percent"""
METRICS = {"cider_d": "CIDEr-D", "meteor": "METEOR"}
GAP = {
    "paired_cosine": "paired cosine",
    "margin": "margin",
    "centroid_distance": "centroid distance",
    "frechet": "Frechet",
    "rmg": "RMG",
    "separability": "separability",
    "audio_to_text_r10": "R@10 a to t",
    "text_to_audio_r10": "R@10 t to a",
    "gram_correlation": "Gram correlation",
    "variance_ratio": "variance ratio",
}
LINK, BASE = "diffusion_link", "none"
TITLES = {BASE: "raw", "mean_shift": "mean shift", "lambda_0": "lambda = 0"}
CLEAR = 0.002
"""difference of paired cosines below which a sweep counts as flat"""


def write_report(runs: Path, docs: Path) -> None:
    """Writes link_results.md and link_sweep.svg to `docs`."""
    parts = ["# Diffusion-Link: measured\n", INTRODUCTION]
    for name, title in SETS.items():
        parts.append(f"## Modality gap, {title}\n\n{gap_table(runs, name)}")
    scored = {}
    for protocol in PAPER:
        for name, title in SETS.items():
            runs_of = evaluations(runs, protocol, name)
            scored[protocol, name] = runs_of
            heading = f"## Captions, {protocol.replace('_', '-')}, {title}\n\n"
            parts.append(heading + caption_table(runs_of, PAPER[protocol]))
    parts.append("## Start time and steps\n\n" + sweep(runs, docs))
    parts.append("## The six acceptance measurements\n\n" + acceptance(runs, scored))
    docs.mkdir(parents=True, exist_ok=True)
    (docs / "link_results.md").write_text("\n".join(parts), encoding="utf-8")
    print("\n".join(parts))


INTRODUCTION = """\
Written by `python benchmarks/link_table.py --set fit.epochs=3`. Pocket models: read the
differences, not the levels.
Gap numbers are means over seeds (in brackets the smallest and the largest). Caption scores are
means over seeds with bootstrap 95 % intervals over clips and seeds; a gain is relative to the same
system without a bridge, its interval from the paired bootstrap of the difference. Held-out scenes
have one reference each, the recordings five.
"""


ACCEPTANCE = """\
A gap quantity holds if it does with every seed, a gain in captions if its interval lies above zero;
"no" where every seed or the whole interval says the opposite, otherwise "not clear".
"""


def cells(runs: Path, folder: str) -> dict[str, list[dict]]:
    """Row -> its cells, seed by seed; the row without a bridge first."""
    found: dict[str, list[dict]] = {}
    for path in sorted((runs / folder).glob("*.json")):
        found.setdefault(path.stem.rpartition("-")[0], []).append(read_json(path))
    return {BASE: found.pop(BASE), **found} if BASE in found else found


def values(rows: Sequence[dict], name: str, quantity: str) -> list[float]:
    """A gap quantity after the bridge, seed by seed."""
    return [row[name]["after"][quantity][0] for row in rows]


def gap_table(runs: Path, name: str) -> str:
    """All bridges, quantities that matter; the first row is the gap before any bridge."""
    lines = ["| bridge | " + " | ".join(GAP.values()) + " |", "|---|" + "---|" * len(GAP)]
    for bridge, rows in cells(runs, "gap").items():
        row = []
        for quantity in GAP:
            found = values(rows, name, quantity)
            spread = (
                f" ({min(found):.3f}-{max(found):.3f})" if max(found) - min(found) > 5e-4 else ""
            )
            row.append(f"{np.mean(found):.3f}{spread}")
        lines.append(f"| {bridge} | " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def evaluations(runs: Path, protocol: str, name: str) -> dict[str, list[Evaluation]]:
    """Row -> evaluations, seed by seed."""
    references = read_json(runs / f"references-{name}.json")["references"]
    return {
        bridge: [evaluate(row[name], references, metrics=list(METRICS)) for row in rows]
        for bridge, rows in cells(runs, protocol).items()
    }


def caption_table(found: dict[str, list[Evaluation]], paper: float) -> str:
    """All bridges of a protocol with their scores and their gain over no bridge."""
    title = f"gain in CIDEr-D (paper: {paper} % for its own)"
    lines = ["| bridge | " + " | ".join(METRICS.values()) + f" | {title} | p | seeds |"]
    lines.append("|---|" + "---|" * (len(METRICS) + 3))
    for bridge, runs in found.items():
        pooled, cells_ = pool(runs), []
        for metric in METRICS:
            score = pooled.get(metric)
            text = "not run"
            if score is not None:
                text = f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]"
            cells_.append(text)
        gain, p = "", ""
        if bridge != BASE and len(found.get(BASE, [])) == len(runs):
            gain, p = relative(compare(runs, found[BASE], names=["cider_d"])["cider_d"])
        lines.append(f"| {bridge} | " + " | ".join(cells_) + f" | {gain} | {p} | {len(runs)} |")
    return "\n".join(lines) + "\n"


def relative(d: Difference) -> tuple[str, str]:
    """The gain in percent with its interval, and p."""
    low, value, high = (100 * x / d.second for x in (d.low, d.difference, d.high))
    return f"{value:+.1f} % [{low:+.1f}, {high:+.1f}]", f"{d.p:.3f}"


def sweep(runs: Path, docs: Path) -> str:
    """The figure, and where the best start time lies."""
    found = [read_json(path)["points"] for path in sorted((runs / "sweep").glob("*.json"))]
    if not found:
        return "Not measured.\n"
    table: dict[tuple[int, int], list[float]] = {}
    for point in (point for points in found for point in points):
        table.setdefault((point["start_time"], point["steps"]), []).append(point["cosine"])
    mean = {key: float(np.mean(v)) for key, v in table.items()}
    times, steps = zip(*mean, strict=True)
    spans = [(min(v), max(v)) for v in table.values()]
    figure = sweep_figure(times, steps, list(mean.values()), spans)
    for path in save_figures({"link_sweep": figure}, docs):
        if path.suffix == ".png":
            path.unlink()
    lines = ["![paired cosine against t*](link_sweep.svg)", "", "| t* | 1 step | 5 | 50 |"]
    lines.append("|---|---|---|---|")
    for t in sorted(set(times)):
        lines.append(f"| {t} | " + " | ".join(f"{mean[t, k]:.4f}" for k in (1, 5, 50)) + " |")
    lines.append(f"\nAt t* = 0 the network is a regressor: {mean[0, 1]:.4f}. " + optima(mean))
    return "\n".join(lines) + "\n"


def optima(mean: dict[tuple[int, int], float]) -> str:
    """For each number of steps where it is best, and whether that is clearly above t* = 0."""
    told = []
    for steps in (1, 5, 50):
        best = max((t for t, k in mean if k == steps), key=lambda t: mean[t, steps])
        clear = mean[best, steps] - mean[0, steps] > CLEAR
        word = "an interior optimum" if clear else "no clear optimum"
        told.append(f"{steps}: t* = {best}, {mean[best, steps]:.4f}, {word}")
    return "Best by number of steps: " + "; ".join(told) + "."


def acceptance(runs: Path, scored: dict) -> str:
    """The specification's six questions with what was measured."""
    gap = cells(runs, "gap")
    lines = ["| question | measured | holds |", "|---|---|---|"]
    if LINK not in gap or BASE not in gap or "mean_shift" not in gap:
        return "Not all rows are there.\n"
    for name in SETS:
        seeds = {b: {q: np.array(values(gap[b], name, q)) for q in GAP} for b in gap}
        for quantity, sign in (
            ("paired_cosine", 1),
            ("centroid_distance", -1),
            ("separability", -1),
        ):
            over = (BASE, "mean_shift")
            lines.append(gap_row("(i) {} improves over both", seeds, name, quantity, sign, over))
        for quantity in ("audio_to_text_r10", "text_to_audio_r10"):
            lines.append(gap_row("(ii) {} does not fall", seeds, name, quantity, 1, (BASE,)))
        if "lambda_0" in gap:
            over = ("lambda_0",)
            lines.append(gap_row("(iii) {} rises", seeds, name, "gram_correlation", 1, over))
        for number, protocol in (("iv", "zero_shot"), ("v", "supervised")):
            runs_of = scored[protocol, name]
            if LINK in runs_of and len(runs_of.get(BASE, [])) == len(runs_of[LINK]):
                d = compare(runs_of[LINK], runs_of[BASE], names=["cider_d"])["cider_d"]
                gain, p = relative(d)
                told = f"{name}: {gain}, p = {p}; paper {PAPER[protocol]} %"
                question = f"({number}) {protocol} CIDEr-D with the bridge"
                lines.append(f"| {question} | {told} | {holds(d.low, d.high)} |")
    lines.append("| (vi) the sweep has an interior optimum | see above | see above |")
    return f"{ACCEPTANCE}\n" + "\n".join(lines) + "\n"


def gap_row(
    question: str,
    seeds: dict[str, dict[str, np.ndarray]],
    name: str,
    quantity: str,
    sign: int,
    rivals: Sequence[str],
) -> str:
    """Whether Diffusion-Link's quantity, times `sign`, is at least that of its rivals."""
    linked = seeds[LINK][quantity]
    others = {TITLES[b]: seeds[b][quantity] for b in rivals}
    told = ", ".join(f"{title} {other.mean():.3f}" for title, other in others.items())
    gains = np.min([sign * (linked - other) for other in others.values()], axis=0)
    held = holds(gains.min(), gains.max())
    return f"| {question.format(GAP[quantity])} | {name}: {linked.mean():.3f}, {told} | {held} |"


def holds(low: float, high: float) -> str:
    """Whether a difference that lies between `low` and `high` is a gain."""
    if low >= 0:
        return "yes"
    return "no" if high < 0 else "not clear"
