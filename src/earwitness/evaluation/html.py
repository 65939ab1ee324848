"""An evaluation as one self-contained HTML page: scores, and the captions worth a closer look."""

import base64
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote

from earwitness.errors import DataError
from earwitness.evaluation.compare import PooledScore, pool
from earwitness.evaluation.extremes import RANKED, extremes, joint_ranks, most_changed
from earwitness.evaluation.files import without_suffix
from earwitness.evaluation.report import Report, p_value
from earwitness.evaluation.scores import Evaluation
from earwitness.evaluation.text import simple
from earwitness.io.suffixes import SOUND_SUFFIXES
from earwitness.templates import render

CARDS = 9
EMBED_BYTES = 600_000
_MEDIA = {".wav": "wav", ".flac": "flac", ".mp3": "mpeg", ".m4a": "mp4", ".mp4": "mp4"}
_UNSCALED = ("vocabulary", "length")
_STYLES = ("first", "second")
_MISSING = PooledScore(math.nan, math.nan, math.nan, math.nan, [])
_RANK_HINT = (
    "Clips are ordered by their mean rank over " + ", ".join(RANKED) + " (those that were run); "
    "a rank is the share of captions that a caption beats, and the length of the bars. Words found "
    "in a reference are marked."
)


@dataclass(frozen=True)
class Bar:
    """An interval and a value on a line, in percent of its width."""

    left: float
    width: float
    dot: float


def page(
    reports: Sequence[Report], *, audio: Path | None = None, folder: Path | None = None
) -> str:
    """The HTML page for `reports`, with players for the clips found under `audio`.

    Sounds of up to 600 kB are embedded in the page; larger ones are linked relative to `folder`,
    where the page will be.

    Raises:
        DataError: `audio` is not a folder.
        MissingDependencyError: Jinja2 is not installed.
    """
    find = partial(_address, _sounds(audio), folder)
    return render(
        "evaluation.html",
        title="Caption evaluation: " + ", ".join(report.dataset for report in reports),
        reports=[_report(number, report, find) for number, report in enumerate(reports)],
        number=_number,
        signed=_signed,
        written_range=_range,
        p_value=p_value,
    )


def _report(number: int, report: Report, find: Callable[[str], str]) -> dict[str, object]:
    """What the template shows for a report."""
    runs = [report.runs[0], *report.other[:1]]
    names = [report.names, report.against][: len(runs)]
    shown = f" Captions are those of {report.names[0]}." if len(report.runs) > 1 else ""
    labels = [", ".join(one) for one in names]
    ranks = joint_ranks(runs)
    groups = [
        {
            "key": key,
            "title": title,
            "hint": hint,
            "cards": [_card(runs, [n[0] for n in names], clip, ranks, find) for clip in clips],
        }
        for key, title, hint, clips in _groups(runs)
        if clips
    ]
    return {
        "number": number,
        "dataset": report.dataset,
        "lead": f"{len(runs[0].ids)} clips; {' against '.join(labels)}.{shown}",
        "systems": [
            {"label": label, "style": style, "many": len(one) > 1}
            for label, style, one in zip(labels, _STYLES, names, strict=False)
        ],
        "scores": _scores(report),
        "differences": report.differences,
        "warnings": [
            *report.notes,
            *(f"{name} was not run: {reason}" for name, reason in report.not_run.items()),
        ],
        "groups": groups,
        "facts": _facts(runs[0]),
    }


def _groups(runs: Sequence[Evaluation]) -> list[tuple[str, str, str, list[int]]]:
    """Key, title, explanation and clips of each group of cards."""
    found = extremes(runs[0], CARDS)
    both = " The bars rank the captions of both systems together." if len(runs) > 1 else ""
    groups = [
        ("best", "Best captions", _RANK_HINT + both, found.best),
        ("worst", "Worst captions", "The lowest mean ranks, worst first.", found.worst),
        (
            "disputed",
            "Captions on which the metrics disagree",
            "The widest gap between the rank one metric gives and the rank another gives.",
            found.disputed,
        ),
    ]
    if len(runs) > 1:
        hint = "The largest differences in mean rank between the two systems."
        changed = most_changed(runs[0], runs[1], CARDS)
        groups.append(("changed", "Captions on which the systems differ", hint, changed))
    return groups


def _scores(report: Report) -> list[dict[str, object]]:
    """One row per metric with one cell per system."""
    pooled = [report.pooled, *([pool(report.other)] if report.other else [])]
    counts = [len(report.runs), len(report.other)]
    rows: list[dict[str, object]] = []
    for name in report.pooled:
        scores = [one.get(name, _MISSING) for one in pooled]
        ends = [x for score in scores for x in (score.value, score.high) if not math.isnan(x)]
        scaled = name not in _UNSCALED
        cells = [
            {
                "value": score.value,
                "low": score.low,
                "high": score.high,
                "sd": score.sd,
                "many": count > 1,
                "style": style,
                "bar": _bar(score, max(1.0, *ends)) if scaled else None,
            }
            for score, style, count in zip(scores, _STYLES, counts, strict=False)
        ]
        rows.append({"name": name, "cells": cells})
    return rows


def _bar(score: PooledScore, top: float) -> Bar | None:
    if math.isnan(score.value):
        return None
    low, high = score.low, score.high
    if math.isnan(low):
        low = high = score.value
    left, right, dot = (100 * max(x, 0.0) / top for x in (low, high, score.value))
    return Bar(left, right - left, dot)


def _card(
    runs: Sequence[Evaluation],
    names: Sequence[str],
    clip: int,
    ranks: Sequence[Mapping[str, Sequence[float]]],
    find: Callable[[str], str],
) -> dict[str, object]:
    """A clip: its sound, the caption of each system, references, and scores.

    Bars show ranks, so that metrics on different scales are comparable.
    """
    references = runs[0].references[clip]
    known = {word for text in references for word in simple(text).split()}
    captions = [
        {
            "who": name if len(runs) > 1 else "",
            "style": style,
            "words": [(word, simple(word) in known) for word in run.candidates[clip].split()],
        }
        for run, name, style in zip(runs, names, _STYLES, strict=False)
    ]
    meters = [
        {
            "name": name,
            "first": style == _STYLES[0],
            "style": style,
            "rank": rank[name][clip],
            "value": run.per_clip[clip][name],
        }
        for name in ranks[0]
        for run, rank, style in zip(runs, ranks, _STYLES, strict=False)
    ]
    return {
        "name": runs[0].ids[clip],
        "sound": find(runs[0].ids[clip]),
        "captions": captions,
        "references": references,
        "meters": meters,
    }


def _facts(run: Evaluation) -> dict[str, object]:
    facts = {"digest": run.fingerprint["digest"], "text": run.fingerprint["text"]}
    metrics, draws = run.fingerprint["metrics"], run.fingerprint["bootstrap"]
    facts |= metrics if isinstance(metrics, dict) else {}
    if isinstance(draws, dict):
        facts["bootstrap"] = ", ".join(f"{key} {value}" for key, value in draws.items())
    return {**facts, "earwitness": run.fingerprint["earwitness"]}


def _sounds(folder: Path | None) -> dict[str, Path]:
    """File name without extension to sound file, for everything under `folder`."""
    if folder is None:
        return {}
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected a folder of sounds")
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SOUND_SUFFIXES)
    return {path.stem: path for path in found}


def _address(sounds: Mapping[str, Path], folder: Path | None, name: str) -> str:
    """The address of the sound called `name` for its player; empty if there is none."""
    path = sounds.get(without_suffix(name))
    if path is None:
        return ""
    if path.stat().st_size > EMBED_BYTES:
        return quote(Path(os.path.relpath(path, folder or Path.cwd())).as_posix())
    media = _MEDIA.get(path.suffix.lower(), "ogg")
    return f"data:audio/{media};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _range(low: float, high: float) -> str:
    return "-" if math.isnan(low) else f"{_number(low)} to {_number(high)}"


def _signed(value: float) -> str:
    return ("+" if value >= 0 else "") + _number(value)


def _number(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.0f}" if abs(value) >= 10 else f"{value:.4f}"
