"""An evaluation as one self-contained HTML page: scores, and the captions worth hearing."""

import base64
import math
import os
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

from earwitness.errors import DataError
from earwitness.evaluation.extremes import RANKED, extremes, most_changed
from earwitness.evaluation.files import without_suffix
from earwitness.evaluation.report import Report, p_value
from earwitness.evaluation.scores import Evaluation
from earwitness.evaluation.text import simple
from earwitness.io.suffixes import SOUND_SUFFIXES

CARDS = 9
EMBED_BYTES = 600_000
_MEDIA = {".wav": "wav", ".flac": "flac", ".mp3": "mpeg", ".m4a": "mp4", ".mp4": "mp4"}
_UNSCALED = ("vocabulary", "length")
_RANK_HINT = (
    "Clips are ordered by their mean rank over " + ", ".join(RANKED) + " (those that were run); "
    "a rank is the share of clips that the caption beats, and the length of the bars. Words found "
    "in a reference are marked."
)


def page(
    reports: Sequence[Report], *, audio: Path | None = None, folder: Path | None = None
) -> str:
    """The HTML page on `reports`, with players for the clips found under `audio`.

    Sounds up to 600 kB are put into the page; larger ones are linked relative to `folder`, where
    the page will lie.

    Raises:
        DataError: `audio` is no folder.
    """
    sounds = _sounds(audio)
    style = files("earwitness.evaluation").joinpath("report.css").read_text(encoding="utf-8")
    title = "Caption evaluation: " + ", ".join(report.dataset for report in reports)
    body = "".join(_report(n, report, sounds, folder) for n, report in enumerate(reports))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )


def _report(number: int, report: Report, sounds: Mapping[str, Path], folder: Path | None) -> str:
    run = report.runs[0]
    other = report.other[0] if report.other else None
    found = extremes(run, CARDS)
    groups = [
        ("best", "Best captions", _RANK_HINT, found.best),
        ("worst", "Worst captions", "The lowest mean ranks, worst first.", found.worst),
        (
            "disputed",
            "Captions on which the metrics disagree",
            "The widest gap between the rank one metric gives and the rank another gives.",
            found.disputed,
        ),
    ]
    if other is not None:
        hint = "The largest differences in mean rank between the two systems."
        changed = most_changed(run, other, CARDS)
        groups.append(("changed", "Captions on which the systems differ", hint, changed))
    groups = [group for group in groups if group[3]]
    links = "".join(f'<li><a href="#{key}-{number}">{name}</a></li>' for key, name, _, _ in groups)
    sections = "".join(
        f'<section id="{key}-{number}"><h2>{name}</h2><p class="hint">{escape(hint)}</p>'
        f'<div class="cards">'
        + "".join(_card(report, clip, found.ranks, sounds, folder) for clip in clips)
        + "</div></section>"
        for key, name, hint, clips in groups
    )
    runs = f" Captions shown are those of {report.names[0]}." if len(report.runs) > 1 else ""
    lead = f"{len(run.ids)} clips; {', '.join(report.names)}.{runs}"
    return (
        f'<header><p class="lead">Caption evaluation</p><h1>{escape(report.dataset)}</h1>'
        f'<p class="lead">{escape(lead)}</p>'
        f'<nav aria-label="Sections"><ul>{links}</ul></nav></header>'
        f"<h2>Scores</h2>{_scores(report)}{_warnings(report)}{_differences(report)}"
        f"{sections}{_facts(run)}"
    )


def _scores(report: Report) -> str:
    many = len(report.runs) > 1
    rows = ""
    for name, score in report.pooled.items():
        sd = f"<td>{_number(score.sd)}</td>" if many else ""
        rows += (
            f'<tr><th scope="row">{escape(name)}</th><td>{_number(score.value)}</td>'
            f"<td>{_range(score.low, score.high)}</td>{sd}"
            f'<td class="plot">{_plot(name, score.value, score.low, score.high)}</td></tr>'
        )
    extra = '<th scope="col">sd over runs</th>' if many else ""
    return (
        '<div class="panel" tabindex="0"><table>'
        "<caption>Corpus scores with 95 % bootstrap intervals</caption>"
        '<thead><tr><th scope="col">metric</th><th scope="col">value</th>'
        f'<th scope="col">95 % interval</th>{extra}<th scope="col" class="plot">0 to 1, '
        f"or to the upper bound</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _plot(name: str, value: float, low: float, high: float) -> str:
    """An interval on a line; empty for a score without a natural scale."""
    if name in _UNSCALED:
        return ""
    low, high = (value, value) if math.isnan(low) else (low, high)
    left, right, dot = (100 * max(x, 0.0) / max(1.0, high) for x in (low, high, value))
    return (
        f'<div class="track" aria-hidden="true"><i class="range" style="left:{left:.2f}%;'
        f'width:{right - left:.2f}%"></i><i class="dot" style="left:{dot:.2f}%"></i></div>'
    )


def _differences(report: Report) -> str:
    if not report.differences:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{_number(d.first)}</td>'
        f"<td>{_number(d.second)}</td><td>{_signed(d.difference)}</td>"
        f"<td>{_range(d.low, d.high)}</td><td>{p_value(d.p)}</td></tr>"
        for name, d in report.differences.items()
    )
    heads = ("metric", "first", "second", "difference", "95 % interval", "p")
    columns = "".join(f'<th scope="col">{head}</th>' for head in heads)
    return (
        '<h2>Comparison</h2><div class="panel" tabindex="0"><table><caption>First: '
        f"{escape(', '.join(report.names))}; second: {escape(', '.join(report.against))}. Paired "
        f"bootstrap interval; p from swapping captions clip by clip.</caption><thead><tr>{columns}"
        f"</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _card(
    report: Report,
    clip: int,
    ranks: Mapping[str, Sequence[float]],
    sounds: Mapping[str, Path],
    folder: Path | None,
) -> str:
    run = report.runs[0]
    references = run.references[clip]
    known = {word for text in references for word in simple(text).split()}
    said = _said(run.candidates[clip], known, report.names[0] if report.other else "")
    if report.other:
        said += _said(report.other[0].candidates[clip], known, report.against[0])
    listed = "".join(f"<li>{escape(text)}</li>" for text in references)
    return (
        f'<article class="card"><h3>{escape(run.ids[clip])}</h3>'
        f"{_player(run.ids[clip], sounds, folder)}{said}"
        f'<ul aria-label="References">{listed}</ul>{_meters(run, clip, ranks)}</article>'
    )


def _said(caption: str, known: set[str], who: str) -> str:
    words = [
        f"<mark>{escape(word)}</mark>" if simple(word) in known else escape(word)
        for word in caption.split()
    ]
    label = f'<span class="who">{escape(who)}</span>' if who else ""
    return f'<p class="said">{label}{" ".join(words) or "(empty caption)"}</p>'


def _meters(run: Evaluation, clip: int, ranks: Mapping[str, Sequence[float]]) -> str:
    """The scores of a clip; a bar shows the rank, so that metrics of different scales compare."""
    rows = ""
    for name, rank in ranks.items():
        bar = f'<i style="width:{rank[clip] * 100:.0f}%"></i>'
        rows += (
            f'<dt>{name}</dt><dd class="meter" aria-hidden="true">{bar}</dd>'
            f"<dd>{run.per_clip[clip][name]:.3f}</dd>"
        )
    return f'<dl class="scores">{rows}</dl>'


def _warnings(report: Report) -> str:
    lines = [f"{name} was not run: {reason}" for name, reason in report.not_run.items()]
    items = "".join(f"<li>{escape(line)}</li>" for line in [*report.notes, *lines])
    return f'<div class="warn" role="note"><ul>{items}</ul></div>' if items else ""


def _facts(run: Evaluation) -> str:
    facts = {"digest": run.fingerprint["digest"], "text": run.fingerprint["text"]}
    metrics, draws = run.fingerprint["metrics"], run.fingerprint["bootstrap"]
    facts |= metrics if isinstance(metrics, dict) else {}
    if isinstance(draws, dict):
        facts["bootstrap"] = ", ".join(f"{key} {value}" for key, value in draws.items())
    facts["earwitness"] = run.fingerprint["earwitness"]
    items = "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in facts.items())
    return f'<h2>Fingerprint</h2><div class="panel"><dl class="facts">{items}</dl></div>'


def _sounds(folder: Path | None) -> dict[str, Path]:
    """File name without suffix to sound file, for everything under `folder`."""
    if folder is None:
        return {}
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of sounds")
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SOUND_SUFFIXES)
    return {path.stem: path for path in found}


def _player(name: str, sounds: Mapping[str, Path], folder: Path | None) -> str:
    path = sounds.get(without_suffix(name))
    if path is None:
        return ""
    if path.stat().st_size <= EMBED_BYTES:
        media = _MEDIA.get(path.suffix.lower(), "ogg")
        source = f"data:audio/{media};base64,{base64.b64encode(path.read_bytes()).decode()}"
    else:
        source = quote(Path(os.path.relpath(path, folder or Path.cwd())).as_posix())
    label = escape(name)
    return f'<audio controls preload="none" aria-label="{label}" src="{escape(source)}"></audio>'


def _range(low: float, high: float) -> str:
    return "-" if math.isnan(low) else f"{_number(low)} to {_number(high)}"


def _signed(value: float) -> str:
    return ("+" if value >= 0 else "") + _number(value)


def _number(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.0f}" if abs(value) >= 10 else f"{value:.4f}"
