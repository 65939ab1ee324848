"""The result on the web page as HTML: picture, timeline, captions, guide words, downloads."""

import json
import math
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from jaxtyping import Float

from earwitness.captioning.pipeline import SoundResult
from earwitness.captioning.segments import NOTHING, Candidate, Segment, distinct
from earwitness.captioning.writers import subtitle_text
from earwitness.serve.bridging import BridgeView
from earwitness.serve.picture import mp3, spectrogram_png, waveform_path
from earwitness.templates import render
from earwitness.text import gist

_HEADLINE = 3
"""different captions in the headline of a long sound"""


@dataclass(frozen=True)
class GuideWords:
    """The words that the Token Guide pushed most, and the stretch of the sound they belong to."""

    words: Sequence[tuple[str, float]]
    start: float
    end: float


@dataclass(frozen=True)
class Insight:
    """What the page shows beside the captions; `second` names the score they were reranked by."""

    guide: GuideWords | None = None
    bridge: BridgeView | None = None
    second: str = ""


def header(model: str) -> str:
    """The top of the page."""
    return render("page/header.html", model=model)


def status(sentence: str, part: float | None = None) -> str:
    """A line that says what is going on; `part` of it is done."""
    return render("page/status.html", sentence=sentence, part=part)


def problem(sentence: str) -> str:
    """A line that says what is wrong."""
    return render("page/problem.html", sentence=sentence)


def result(
    sound: SoundResult,
    samples: Float[np.ndarray, " T"],
    rate: int,
    insight: Insight,
    model: str,
) -> str:
    """Everything that is known about a sound."""
    segments, guide = sound.segments, insight.guide
    said = set(gist(" ".join(segment.caption for segment in segments)))
    pushed = [(word, boost, said >= {*gist(word)}) for word, boost in guide.words] if guide else []
    seconds = max(sound.seconds, 1e-3)
    return render(
        "page/result.html",
        name=sound.name,
        stem=PurePath(sound.name).stem or "sound",
        model=model,
        seconds=seconds,
        headline=headline(segments),
        segments=segments,
        several=[segment for segment in segments if segment.candidates],
        second=insight.second,
        waveform=waveform_path(samples),
        spectrogram=b64encode(spectrogram_png(samples, rate)).decode(),
        sound=b64encode(mp3(samples, rate)).decode(),
        ticks=_ticks(seconds),
        bridge=insight.bridge,
        guide=guide,
        # If the caption holds none of these words, they say nothing about the sound.
        pushed=pushed if any(spoken for *_, spoken in pushed) else [],
        highest_boost=max((boost for _, boost, _ in pushed), default=1.0),
        downloads=_downloads(sound, model),
        clock=clock,
        sentence=_sentence,
        ordered=ordered,
    )


def headline(segments: Sequence[Segment]) -> str:
    """The caption of one segment, or those that fill most of the time of several, in order."""
    if len(segments) == 1:
        return segments[0].caption
    groups = distinct(segments)
    longest = sorted(groups, key=lambda group: -sum(one.end - one.start for one in group))
    shown = [group[0].caption for group in groups if group in longest[:_HEADLINE]]
    more = len(groups) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "") if shown else NOTHING


def ordered(candidates: Sequence[Candidate], second: str) -> list[Candidate]:
    """The candidates by the first number that the page shows for them, highest first."""

    def shown(one: Candidate) -> float:
        if not second:
            return one.score
        return -math.inf if one.rerank is None else one.rerank

    return sorted(candidates, key=shown, reverse=True)


def clock(seconds: float) -> str:
    """Minutes and seconds, below a minute with the tenth if there is one: 0:07, 0:07.5, 2:05."""
    if seconds < 59.95:
        return f"0:{seconds:04.1f}".removesuffix(".0")
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _ticks(seconds: float) -> list[tuple[float, str]]:
    """Places on the time axis in percent, with their labels."""
    steps = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0)
    step = next((s for s in steps if seconds / s <= 6), 600.0)
    places = np.arange(0, seconds * 0.97, step)
    return [(100 * float(at) / seconds, _tick(float(at), step)) for at in places]


def _tick(at: float, step: float) -> str:
    if step < 1:
        return f"{at:.1f} s"
    return f"{int(at) // 60}:{int(at) % 60:02}"


def _downloads(sound: SoundResult, model: str) -> list[tuple[str, str]]:
    """The ending and the address of each file to download."""
    record = sound.record(model)
    timed = {**record, "segments": [segment.as_dict() for segment in sound.segments]}
    texts = {
        "srt": ("application/x-subrip", subtitle_text(timed, "srt")[0]),
        "vtt": ("text/vtt", subtitle_text(timed, "vtt")[0]),
        "json": ("application/json", json.dumps(timed, ensure_ascii=False, indent=1) + "\n"),
    }
    return [
        (ending, f"data:{kind};base64,{b64encode(text.encode()).decode()}")
        for ending, (kind, text) in texts.items()
    ]


def _sentence(caption: str) -> str:
    """The caption as a headline: first letter in upper case, one full stop."""
    text = caption.strip().rstrip(".")
    return f"{text[:1].upper()}{text[1:]}." if text else caption
