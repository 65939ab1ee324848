"""Form fields of a request as a `Listening`: the command line's options within the limits."""

from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from fastapi import Depends, Form, Request

from earwitness.caption import Decoding
from earwitness.captioning.local import Listening
from earwitness.captioning.rerank import Reranker
from earwitness.captioning.segments import Windows
from earwitness.config import validate
from earwitness.errors import ConfigError
from earwitness.serve.hearing import Service

CaptionFormat = Literal["json", "text", "srt", "vtt"]

FILES = ("file", "merge")
"""form fields that are uploads"""


@dataclass(frozen=True)
class Wishes:
    """What a request asks for."""

    response_format: CaptionFormat
    stream: bool
    listening: Listening


def caption_wishes(
    request: Request,
    response_format: Annotated[CaptionFormat, Form(description="What comes back.")] = "json",
    stream: Annotated[bool, Form(description="Segments as server-sent events.")] = False,
    model: Annotated[str | None, Form(description="Name of the served model.")] = None,
    beam: Annotated[int | None, Form(ge=1, description="Beams of the search.")] = None,
    n_best: Annotated[int | None, Form(ge=1, description="Captions a sound, best first.")] = None,
    sample: Annotated[bool, Form(description="Draw captions in place of searching.")] = False,
    temperature: Annotated[float | None, Form(description="With sample.")] = None,
    top_p: Annotated[float | None, Form(description="With sample.")] = None,
    seed: Annotated[int | None, Form(ge=0, description="With sample.")] = None,
    guide_strength: Annotated[
        float | None, Form(ge=0, description="Multiplies the Token Guide; 0 switches it off.")
    ] = None,
    rerank: Annotated[
        str | None, Form(description="Choose by this CLAP of the service, or by 'consensus'.")
    ] = None,
    rerank_weight: Annotated[
        float | None, Form(ge=0, le=1, description="With rerank; 1: by it alone.")
    ] = None,
    min_score: Annotated[
        float | None, Form(ge=0, le=1, description="Below this score: 'no distinct sound'.")
    ] = None,
    silence: Annotated[
        float | None, Form(description="Level in dB of full scale below which there is no sound.")
    ] = None,
    timed: Annotated[bool, Form(description="Times for short sounds, too.")] = False,
    window: Annotated[float | None, Form(description="Seconds of a window; implies timed.")] = None,
    hop: Annotated[float | None, Form(description="Seconds from window to window.")] = None,
    whole: Annotated[
        float | None, Form(description="Sounds up to these seconds are captioned as a whole.")
    ] = None,
) -> Wishes:
    """The fields beside the file. Raises ConfigError where they do not hold together."""
    service: Service = request.app.state.service
    check_model(service, model)
    draws = {"temperature": temperature, "top_p": top_p, "seed": seed}
    alone = [name for name, value in draws.items() if value is not None]
    if alone and not sample:
        raise ConfigError(f"{alone[0]} needs sample=true")
    if sample and beam is not None:
        raise ConfigError(f"beam={beam} and sample=true exclude each other")
    changes: dict[str, Any] = {
        "beam_size": beam,
        "n_best": n_best,
        "sample": sample or None,
        "guide_strength": guide_strength,
        **draws,
    }
    timed = timed or stream or response_format in ("srt", "vtt")
    listening = listening_for(service, changes, timed, window, hop, whole, silence, min_score)
    reranker = reranker_for(service, rerank, rerank_weight)
    return Wishes(response_format, stream, replace(listening, reranker=reranker))


CaptionWishes = Annotated[Wishes, Depends(caption_wishes)]


def listening_for(
    service: Service,
    changes: dict[str, Any],
    timed: bool,
    window: float | None = None,
    hop: float | None = None,
    whole: float | None = None,
    silence: float | None = None,
    min_score: float | None = None,
) -> Listening:
    """The `Listening` of a request; `changes` are to the model's own search, None is no change.

    Raises:
        ConfigError: a value out of range, or beyond a limit of the service.
    """
    settings = service.settings
    own = service.captioner.decoding.model_dump()
    given = {key: value for key, value in changes.items() if value is not None}
    decoding = validate(Decoding, own | given, "the caption search")
    for name, value in (("beam", decoding.beam_size), ("n_best", decoding.n_best)):
        if value > settings.max_beams:
            raise ConfigError(f"{name}={value}; this service accepts 1 to {settings.max_beams}")
    timed = timed or window is not None or hop is not None
    length = 10.0 if window is None else window
    if whole is None:
        whole = 1.5 * length if timed else max(30.0, length)
        whole = max(length, min(whole, settings.max_window_seconds))
    if max(length, whole) > settings.max_window_seconds:
        name = "window" if length > settings.max_window_seconds else "whole"
        raise ConfigError(
            f"{name}={max(length, whole):g} s; this service captions at most "
            f"{settings.max_window_seconds:g} s as a whole"
        )
    windows = Windows(length, length if hop is None else hop, whole)
    return Listening(
        windows,
        timed,
        settings.silence_db if silence is None else silence,
        service.min_score if min_score is None else min_score,
        decoding,
    )


def reranker_for(service: Service, name: str | None, weight: float | None) -> Reranker | None:
    """The reranker that a request asks for; none for None or an empty name.

    Raises:
        ConfigError: the service has none of that name, or there is a weight for nothing.
    """
    if not name:
        if weight is not None:
            raise ConfigError("rerank_weight needs rerank")
        return None
    if name not in service.rerankers:
        raise ConfigError(f"rerank={name!r}; this service accepts {', '.join(service.rerankers)}")
    reranker = service.rerankers[name]
    return reranker if weight is None else replace(reranker, weight=weight)


def check_model(service: Service, name: str | None) -> None:
    """Raises UnknownModelError for a name that is neither the model's nor an alias."""
    own = service.captioner.name
    if name not in (None, own, *service.settings.aliases):
        also = (
            f", also as {', '.join(service.settings.aliases)}" if service.settings.aliases else ""
        )
        raise UnknownModelError(f"model {name!r} is not served here; there is {own}{also}")


class UnknownModelError(ConfigError):
    """A model that this service does not have."""


async def check_names(request: Request) -> None:
    """Raises ConfigError for a form field that is no option; a misspelt one must not pass."""
    known = {*FILES, *caption_wishes.__annotations__} - {"request", "return"}
    for name in await request.form():
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"
            raise ConfigError(f"unknown field {name!r}; {hint}")
