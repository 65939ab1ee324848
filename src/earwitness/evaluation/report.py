"""Evaluations as a terminal table, a JSON document and a CSV of per-clip scores."""

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from earwitness.errors import DataError
from earwitness.evaluation.compare import Difference, PooledScore, pool
from earwitness.evaluation.scores import Evaluation
from earwitness.io.atomic import replacing

FORMAT = 1
_INTEGERS = ("vocabulary",)


@dataclass(frozen=True)
class Report:
    """One system on one data set: its runs (one per seed), and the system it is compared with."""

    dataset: str
    names: list[str]
    runs: list[Evaluation]
    pooled: dict[str, PooledScore]
    notes: list[str] = field(default_factory=list)
    against: list[str] = field(default_factory=list)
    other: list[Evaluation] = field(default_factory=list)
    differences: dict[str, Difference] = field(default_factory=dict)

    @property
    def not_run(self) -> dict[str, str]:
        """Metric to reason, across all runs of both systems."""
        return {k: v for run in [*self.other, *self.runs] for k, v in run.not_run.items()}


def make_report(
    dataset: str, names: list[str], runs: list[Evaluation], notes: Sequence[str] = ()
) -> Report:
    """The report on one system; several runs are pooled."""
    return Report(dataset, names, runs, pool(runs), [*dict.fromkeys(notes)])


def table(report: Report) -> str:
    """The corpus scores with their intervals, one metric per line, and what was not run."""
    many = len(report.runs) > 1
    rows = [["metric", "value", "95 % interval"] + (["sd over seeds", "runs"] if many else [])]
    for name, score in report.pooled.items():
        row = [name, _number(name, score.value), _interval(name, score.low, score.high)]
        if many:
            runs = " ".join(_number(name, value) for value in score.runs)
            row += [_number(name, score.sd), runs]
        rows.append(row)
    clips = len(report.runs[0].ids)
    seeds = f", {len(report.runs)} runs pooled" if many else ""
    head = f"{report.dataset}: {clips} clips{seeds}"
    parts = [head, _aligned(rows)]
    if report.differences:
        parts.append(_comparison(report))
    return "\n\n".join([*parts, _footer(report)])


def cross_table(reports: Sequence[Report]) -> str:
    """Data sets down, metrics across: value and half-width of the 95 % interval."""
    names = list(dict.fromkeys(name for report in reports for name in report.pooled))
    rows = [["metric", *(f"{report.dataset} ({len(report.runs[0].ids)})" for report in reports)]]
    for name in names:
        cells = [report.pooled.get(name) for report in reports]
        rows.append([name, *("not run" if c is None else _cell(name, c) for c in cells)])
    return "\n\n".join([_aligned(rows), *dict.fromkeys(_footer(report) for report in reports)])


def as_json(reports: Sequence[Report]) -> str:
    """The reports as one JSON document, ending in a newline; NaN becomes null."""
    content = {"format": FORMAT, "reports": [_document(report) for report in reports]}
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_per_clip(reports: Sequence[Report], path: Path) -> None:
    """Writes one row per clip and run: data set, run, id, caption, and its scores.

    Raises:
        DataError: the file cannot be written.
    """
    runs = [
        (report.dataset, name, run)
        for report in reports
        for name, run in zip(
            [*report.names, *report.against], [*report.runs, *report.other], strict=True
        )
    ]
    names = list(dict.fromkeys(name for _, _, run in runs for name in run.per_clip[0]))
    with replacing(path, DataError, make_folder=False) as file:
        lines = io.TextIOWrapper(
            file, encoding="utf-8", errors="surrogateescape", newline="", write_through=True
        )
        writer = csv.writer(lines)
        writer.writerow(["dataset", "run", "id", "candidate", *names])
        for dataset, label, run in runs:
            for clip, text, scores in zip(run.ids, run.candidates, run.per_clip, strict=True):
                cells = [scores.get(name, "") for name in names]
                writer.writerow([dataset, label, clip, text, *cells])
        lines.detach()


def _comparison(report: Report) -> str:
    rows = [["metric", "first", "second", "difference", "95 % interval", "p", "p (Holm)"]]
    for name, d in report.differences.items():
        values = [_number(name, d.first), _number(name, d.second), _signed(name, d.difference)]
        ps = [p_value(d.p), p_value(d.p_holm)]
        rows.append([name, *values, _interval(name, d.low, d.high), *ps])
    head = f"first: {', '.join(report.names)}\nsecond: {', '.join(report.against)}"
    return f"{head}\n\n{_aligned(rows)}"


def _footer(report: Report) -> str:
    fingerprint = report.runs[0].fingerprint
    lines = [f"note: {note}" for note in report.notes]
    lines += [f"not run: {name}: {reason}" for name, reason in report.not_run.items()]
    return "\n".join(
        [*lines, f"text: {fingerprint['text']}", f"fingerprint: {fingerprint['digest']}"]
    )


def _document(report: Report) -> dict[str, object]:
    document: dict[str, object] = {
        "dataset": report.dataset,
        "clips": len(report.runs[0].ids),
        "runs": report.names,
        "corpus": {name: _finite(asdict(score)) for name, score in report.pooled.items()},
        "not_run": report.not_run,
        "notes": report.notes,
        "fingerprint": report.runs[0].fingerprint,
    }
    if report.differences:
        document["against"] = report.against
        document["differences"] = {n: _finite(asdict(d)) for n, d in report.differences.items()}
    return document


def _finite(values: dict[str, object]) -> dict[str, object]:
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()}


def _aligned(rows: list[list[str]]) -> str:
    """Aligned columns of text: the first left-aligned, the others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            c.rjust(w) if i else c.ljust(w)
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _cell(name: str, score: PooledScore) -> str:
    half = "" if math.isnan(score.low) else f" +- {_number(name, (score.high - score.low) / 2)}"
    return _number(name, score.value) + half


def _interval(name: str, low: float, high: float) -> str:
    return "-" if math.isnan(low) else f"[{_number(name, low)}, {_number(name, high)}]"


def _signed(name: str, value: float) -> str:
    return ("+" if value >= 0 else "") + _number(name, value)


def _number(name: str, value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.0f}" if name in _INTEGERS else f"{value:.4f}"


def p_value(p: float) -> str:
    """A p-value with three digits; "-" if there is none."""
    return "-" if math.isnan(p) else f"{p:.3f}"
