"""Form fields of a request as `CaptionSettings`: the options of captions within the limits."""

from dataclasses import replace
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from fastapi import Form, UploadFile
from pydantic import Field, model_validator
from starlette.datastructures import FormData

from earwitness.captioning.options import CaptionOptions
from earwitness.captioning.pipeline import CaptionSettings, settings_for
from earwitness.captioning.rerank import Reranker
from earwitness.errors import ConfigError
from earwitness.io.kinds import is_object
from earwitness.serve.service import Service

_OPENAI_FIELDS = (
    *("file", "model", "response_format", "temperature", "timestamp_granularities", "stream"),
    *("language", "prompt", "include", "chunking_strategy"),
    *("known_speaker_names", "known_speaker_references"),
)

CaptionFormat = Literal["json", "text", "srt", "vtt"]


class SoundForm(CaptionOptions):
    """A form with a sound, and the options of `earwitness caption`."""

    file: UploadFile = Field(description="A sound or video file.")
    model: str | None = Field(None, description="Name of the served model, or an alias of it.")

    @model_validator(mode="before")
    @classmethod
    def _without_empty_fields(cls, fields: Any) -> Any:
        if not is_object(fields):
            return fields
        return {name: value for name, value in fields.items() if value != ""}


class CaptionForm(SoundForm):
    """The form of /v1/audio/captions: the options of `earwitness caption`, and what comes back."""

    merge: UploadFile | None = Field(
        None, description="SRT or VTT of the speech, to put the sounds between its lines."
    )
    response_format: CaptionFormat = Field("json", description="What comes back.")
    stream: bool = Field(False, description="Segments as server-sent events.")


class JobForm(SoundForm):
    """The form of /v1/jobs: the options of `earwitness caption`, and who is notified of the end."""

    webhook: str | None = Field(
        None,
        max_length=2000,
        description="URL that receives the job as JSON when it ends, on a host that the service "
        "allows.",
    )


CaptionRequest = Annotated[CaptionForm, Form(media_type="multipart/form-data")]
JobRequest = Annotated[JobForm, Form(media_type="multipart/form-data")]


def request_settings(
    service: Service, options: CaptionOptions, timed: bool = False
) -> CaptionSettings:
    """The settings of a request, completed with those of the model and the service.

    Raises:
        ConfigError: incompatible options, a value out of range or beyond a limit of the
            service, or a reranker that it does not have.
    """
    conflict = options.conflict()
    if conflict is not None and conflict.excludes:
        value = getattr(options, conflict.option)
        raise ConfigError(f"{conflict.option}={value} and {conflict.other}=true exclude each other")
    if conflict is not None:
        wanted = "sample=true" if conflict.other == "sample" else conflict.other
        raise ConfigError(f"{conflict.option} needs {wanted}")
    limits = service.settings
    found = settings_for(
        options,
        service.captioner,
        timed=timed,
        longest=limits.max_window_seconds,
        silence_db=limits.silence_db,
        reranker=_reranker(service, options.rerank, options.rerank_weight),
    )
    assert found.decoding is not None
    for name, value in (("beam", found.decoding.beam_size), ("n_best", found.decoding.n_best)):
        if value > limits.max_beams:
            raise ConfigError(f"{name}={value}; this service accepts 1 to {limits.max_beams}")
    window, whole = found.windows.window, found.windows.whole
    if max(window, whole) > limits.max_window_seconds:
        name = "window" if window > limits.max_window_seconds else "whole"
        raise ConfigError(
            f"{name}={max(window, whole):g} s; this service captions at most "
            f"{limits.max_window_seconds:g} s as a whole"
        )
    return found


def check_granularities(form: FormData, values: list[str] | None) -> None:
    """Raises ConfigError for an unknown value, and for a misspelled field of the transcriptions.

    Fields that resemble none are let through: OpenAI's API keeps growing.
    """
    for value in [*(values or []), *form.getlist("timestamp_granularities")]:
        if value == "word":
            raise ConfigError(
                "timestamp_granularities 'word'; a sound caption has times per 'segment'"
            )
        if value != "segment":
            raise ConfigError(f"timestamp_granularities {str(value)[:40]!r}; expected 'segment'")
    for name in form:
        base = name.partition("[")[0]
        near = get_close_matches(base, _OPENAI_FIELDS, n=1, cutoff=0.8)
        if base not in _OPENAI_FIELDS and near:
            raise ConfigError(f"unknown field {name[:40]!r}; did you mean {near[0]!r}?")


def _reranker(service: Service, name: str | None, weight: float | None) -> Reranker | None:
    """The reranker that a request asks for. Raises ConfigError if the service does not have it."""
    if not name or name == "none":
        return None
    if name not in service.rerankers:
        raise ConfigError(f"rerank={name!r}; this service accepts {', '.join(service.rerankers)}")
    reranker = service.rerankers[name]
    return reranker if weight is None else replace(reranker, weight=weight)


def check_model(service: Service, name: str | None) -> None:
    """Raises UnknownModelError for a name that is neither the model's nor an alias."""
    own, aliases = service.captioner.name, service.settings.aliases
    if name not in (None, own, *aliases):
        also = f", also as {', '.join(aliases)}" if aliases else ""
        raise UnknownModelError(f"model {name!r} is not served here; there is {own}{also}")


class UnknownModelError(ConfigError):
    """A model that this service does not have."""
