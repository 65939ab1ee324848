"""The result on the web page as HTML: picture, time line, captions, guide words, downloads."""

import json
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import PurePath

import numpy as np

from earwitness.captioning.pipeline import SoundResult as Heard
from earwitness.captioning.segments import Candidate, Segment
from earwitness.captioning.writers import subtitle_text
from earwitness.serve.bridging import BridgeView, Place
from earwitness.serve.picture import mp3, spectrogram_png, waveform_path


@dataclass(frozen=True)
class GuideWords:
    """The words that the Token Guide pushed most, and the stretch of the sound they belong to."""

    words: Sequence[tuple[str, float]]
    start: float
    end: float


@dataclass(frozen=True)
class Insight:
    """What the page tells beside the captions; `second` names the score they were reranked by."""

    guide: GuideWords | None = None
    bridge: BridgeView | None = None
    second: str = ""


def status(sentence: str, part: float | None = None) -> str:
    """A line that says what goes on; `part` of it is done."""
    bar = (
        ""
        if part is None
        else f'<span class="ew-progress"><i style="width:{100 * part:.0f}%"></i></span>'
    )
    return f'<p class="ew-status" role="status">{escape(sentence)}{bar}</p>'


def problem(sentence: str) -> str:
    """A line that says what is wrong."""
    return f'<p class="ew-problem" role="alert">{escape(sentence)}</p>'


def result(heard: Heard, samples: np.ndarray, rate: int, insight: Insight, model: str) -> str:
    """Everything that is known of a sound."""
    parts = [_headline(heard), _stage(heard, samples, rate)]
    if len(heard.segments) > 1:
        parts.append(_table(heard.segments))
    parts += [_candidates(heard.segments, insight.second), _bridge(insight.bridge)]
    parts += [_guide(insight.guide, heard.segments), _downloads(heard, model)]
    return f'<article class="ew-card" aria-label="Result">{"".join(parts)}</article>'


def clock(seconds: float) -> str:
    """Minutes and seconds, below a minute with the tenth if there is one: 0:07, 0:07.5, 2:05."""
    if seconds < 59.95:
        return f"0:{seconds:04.1f}".removesuffix(".0")
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _headline(heard: Heard) -> str:
    first = heard.segments[0]
    count = len(heard.segments)
    score = "" if first.score is None else f"<span>score {first.score:.2f}</span>"
    stretches = f"<span>{count} segments</span>" if count > 1 else score
    return (
        f'<header><p class="ew-caption" data-caption>{escape(_sentence(first.caption))}</p>'
        f'<p class="ew-meta"><span>{escape(heard.name)}</span>'
        f"<span>{heard.seconds:.1f} s</span>{stretches}</p></header>"
    )


def _stage(heard: Heard, samples: np.ndarray, rate: int) -> str:
    """Waveform and spectrogram over the segments and a time axis, with a player."""
    image = b64encode(spectrogram_png(samples, rate)).decode()
    sound = b64encode(mp3(samples, rate)).decode()
    seconds = max(heard.seconds, 1e-3)
    bars = "".join(_bar(segment, seconds) for segment in heard.segments)
    return (
        f'<div class="ew-stage" data-seconds="{seconds:.3f}">'
        '<div class="ew-plot" aria-hidden="true">'
        '<svg viewBox="0 0 1000 100" preserveAspectRatio="none">'
        f'<path d="{waveform_path(samples)}"/></svg>'
        f'<img alt="" src="data:image/png;base64,{image}"><i class="ew-head"></i></div>'
        f'<ol class="ew-lane" aria-label="Segments on the time line">{bars}</ol>'
        f'<div class="ew-axis" aria-hidden="true">{_ticks(seconds)}</div>'
        f'<audio controls preload="auto" aria-label="Player" '
        f'src="data:audio/mpeg;base64,{sound}"></audio></div>'
    )


def _bar(segment: Segment, seconds: float) -> str:
    left, width = 100 * segment.start / seconds, 100 * (segment.end - segment.start) / seconds
    closed = " ew-closed" if segment.gate else ""
    text = escape(segment.caption)
    return (
        f'<li class="ew-segment{closed}" style="left:{left:.3f}%;width:{width:.3f}%">'
        f'<button type="button" title="{text}" {_span(segment)}>{text}</button></li>'
    )


def _span(segment: Segment) -> str:
    """The attributes of a button that plays a segment."""
    said = escape(f"Play {clock(segment.start)} to {clock(segment.end)}: {segment.caption}")
    return (
        f'data-start="{segment.start:.3f}" data-end="{segment.end:.3f}" '
        f'data-text="{escape(_sentence(segment.caption))}" aria-label="{said}"'
    )


def _ticks(seconds: float) -> str:
    steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600)
    step = next((s for s in steps if seconds / s <= 6), 600)
    return "".join(
        f'<span style="left:{100 * at / seconds:.2f}%">{_tick(float(at), step)}</span>'
        for at in np.arange(0, seconds * 0.97, step)
    )


def _tick(at: float, step: float) -> str:
    if step < 1:
        return f"{at:.1f} s"
    return f"{int(at) // 60}:{int(at) % 60:02}"


def _table(segments: Sequence[Segment]) -> str:
    rows = "".join(
        f'<tr><td><button type="button" class="ew-time" {_span(s)}>{clock(s.start)}</button></td>'
        f"<td>{escape(s.caption)}</td><td>{'' if s.score is None else f'{s.score:.2f}'}</td></tr>"
        for s in segments
    )
    return (
        "<section><h2>What is heard, and when</h2><table><thead><tr><th>From</th><th>Caption</th>"
        f"<th>Score</th></tr></thead><tbody>{rows}</tbody></table></section>"
    )


def _candidates(segments: Sequence[Segment], second: str) -> str:
    """The n-best captions: open for one segment, folded for several."""
    several = [segment for segment in segments if segment.candidates]
    if not several:
        return ""
    note = f'<p class="ew-note">Chosen by {escape(second)} and score.</p>' if second else ""
    if len(segments) == 1:
        bars = _bars(several[0].candidates, second)
        return f"<section><h2>Best captions</h2>{note}{bars}</section>"
    folded = "".join(
        f"<details><summary>{clock(s.start)} to {clock(s.end)}</summary>"
        f"{_bars(s.candidates, second)}</details>"
        for s in several
    )
    return f"<section><h2>Best captions of each segment</h2>{note}{folded}</section>"


def _bars(candidates: Sequence[Candidate], second: str) -> str:
    rows = "".join(
        f'<li><span class="ew-label">{escape(one.caption)}</span>{_second(one, second)}'
        f'<meter min="0" max="1" value="{one.score:.4f}">{one.score:.2f}</meter>'
        f'<span class="ew-number">{one.score:.2f}</span></li>'
        for one in candidates
    )
    if not second:
        return f'<ol class="ew-bars">{rows}</ol>'
    names = f"<span>{escape(second.partition(' ')[0])}</span><span>score</span>"
    head = f'<div class="ew-names" aria-hidden="true">{names}</div>'
    return f'{head}<ol class="ew-bars ew-two">{rows}</ol>'


def _second(candidate: Candidate, name: str) -> str:
    if not name:
        return ""
    value = "-" if candidate.rerank is None else f"{candidate.rerank:.2f}"
    return f'<span class="ew-number ew-second" title="{escape(name)}">{value}</span>'


def _bridge(view: BridgeView | None) -> str:
    """The captions without and with the bridge, and how far either embedding lies from text."""
    if view is None:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{name}</th><td>{escape(caption)}</td>{_distances(place)}</tr>'
        for name, caption, place in zip(
            ("Without", "With"), view.captions, view.places, strict=True
        )
    )
    own = f"a sentence among {view.sentences}, in the median"
    return (
        '<section class="ew-bridge"><h2>What the bridge does</h2>'
        f'<p class="ew-note">The embedding of the sound, {clock(view.start)} to {clock(view.end)}, '
        "given to the language model as it is, and carried over to text. Distances are "
        "1 - cosine.</p>"
        "<table><thead><tr><th>Bridge</th><th>Caption</th><th>Nearest sentence</th>"
        f"<th>Centre of text</th></tr></thead><tbody>{rows}"
        f'<tr class="ew-own"><th scope="row">Text</th><td>{own}</td>{_distances(view.own)}</tr>'
        "</tbody></table></section>"
    )


def _distances(place: Place) -> str:
    return f"<td>{place.nearest:.2f}</td><td>{place.centre:.2f}</td>"


def _guide(guide: GuideWords | None, segments: Sequence[Segment]) -> str:
    if guide is None or not guide.words:
        return ""
    said = {word.strip(".,") for segment in segments for word in segment.caption.lower().split()}
    top = max(boost for _, boost in guide.words)
    rows = "".join(
        f'<li class="{"ew-said" if word.lower() in said else ""}">'
        f'<span class="ew-label">{escape(word)}</span>'
        f'<span class="ew-track"><i style="width:{100 * boost / top:.0f}%"></i></span>'
        f'<span class="ew-number">+{boost:.2f}</span></li>'
        for word, boost in guide.words
    )
    return (
        "<section><h2>What the Token Guide pushed</h2>"
        f'<p class="ew-note">Added to the logit of each word, from the sound alone, '
        f"{clock(guide.start)} to {clock(guide.end)}. Words of the caption are bold.</p>"
        f'<ol class="ew-bars ew-words">{rows}</ol></section>'
    )


def _downloads(heard: Heard, model: str) -> str:
    record = heard.record(model)
    timed = {**record, "segments": [segment.as_dict() for segment in heard.segments]}
    texts = {
        "srt": ("application/x-subrip", subtitle_text(timed, "srt")[0]),
        "vtt": ("text/vtt", subtitle_text(timed, "vtt")[0]),
        "json": ("application/json", json.dumps(timed, ensure_ascii=False, indent=1) + "\n"),
    }
    stem = escape(PurePath(heard.name).stem or "sound")
    links = "".join(
        f'<a class="ew-download" download="{stem}.{ending}" '
        f'href="data:{kind};base64,{b64encode(text.encode()).decode()}">{ending.upper()}</a>'
        for ending, (kind, text) in texts.items()
    )
    named = f'<span class="ew-model">{escape(model)}</span>'
    return f"<footer><span>Download</span>{links}{named}</footer>"


def _sentence(caption: str) -> str:
    """The caption as a headline: first letter in upper case, one full stop."""
    text = caption.strip().rstrip(".")
    return f"{text[:1].upper()}{text[1:]}." if text else caption
