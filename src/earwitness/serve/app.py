"""The HTTP application: sound captions through a small API of its own and through OpenAI's."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import aclosing, asynccontextmanager
from typing import Annotated, Any, TypeVar

import anyio
from fastapi import FastAPI, File, Form, Request, UploadFile
from starlette.datastructures import UploadFile as FormFile
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.types import Receive, Scope, Send

from earwitness import __version__
from earwitness.captioning.captioner import Captioner
from earwitness.captioning.options import CaptionOptions
from earwitness.captioning.pipeline import CaptionSettings, SoundInProgress
from earwitness.captioning.rerank import Reranker
from earwitness.captioning.segments import Segment, summary
from earwitness.captioning.subtitles import Subtitles, read
from earwitness.config import validate
from earwitness.errors import AudioTooLargeError, ConfigError, EarwitnessError
from earwitness.serve import answers, api_page, faults, schema
from earwitness.serve.connections import STREAM_PATH
from earwitness.serve.hosts import HostCheck, Outside
from earwitness.serve.job_routes import router
from earwitness.serve.jobs import Jobs
from earwitness.serve.limits import Gate, problem
from earwitness.serve.options import (
    CaptionRequest,
    check_granularities,
    check_model,
    request_settings,
)
from earwitness.serve.service import Service, Upload, uploaded
from earwitness.serve.settings import Settings
from earwitness.serve.streams import stream
from earwitness.serve.working import Worker

Result = TypeVar("Result")

_MERGE_BYTES = 2_000_000
_CLIENT_GONE = 499
_READ_SECONDS = 10.0


class LateError(EarwitnessError):
    """The captions of a stream took too long."""


def create_app(
    captioner: Captioner, settings: Settings | None = None, reranker: Reranker | None = None
) -> FastAPI:
    """The application around a captioner: the endpoints, and the web page at /demo/.

    Requests may ask for `reranker` by its name.
    """
    settings = settings or Settings()
    service = Service(captioner, settings, reranker)
    jobs = Jobs(settings.jobs) if settings.jobs else None

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        async with service.running(), _working(service, jobs):
            yield

    # FastAPI's own /docs would load its scripts from elsewhere.
    app = FastAPI(
        title="earwitness",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service, app.state.jobs, app.state.on_drain = service, jobs, []
    app.add_middleware(Gate, service=service)
    if settings.cors_origins:
        shown = ("X-Notes", "X-Sounds-Without-Gap", "X-Cues-Left-Out", "Location", "Retry-After")
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=("*",),
            expose_headers=shown,
        )
    app.add_middleware(HostCheck, settings=settings)
    app.add_middleware(Outside, root_path=settings.root_path)
    faults.handle(app)
    app.post("/v1/audio/captions", responses=schema.CAPTIONS)(_captions)
    app.post("/v1/audio/transcriptions", responses=schema.TRANSCRIPTIONS)(_transcriptions)
    app.post("/v1/audio/translations", responses=schema.TRANSCRIPTIONS)(_translations)
    app.include_router(router)
    app.websocket(STREAM_PATH)(stream)
    app.get("/v1/models", responses=schema.problems(400, 401, 429))(_models)
    app.get("/v1/models/{name}", responses=schema.problems(400, 401, 404, 422, 429))(_model)
    app.get("/health", responses=schema.problems(400))(_health)
    app.get("/ready", responses=schema.problems(400, 503))(_ready)
    app.get("/metrics", include_in_schema=False)(_metrics)
    app.get("/docs", include_in_schema=False)(_docs)
    if settings.demo:
        from earwitness.serve.demo import mount

        mount(app, service)
        app.get("/favicon.ico", include_in_schema=False)(_icon)
        app.get("/", include_in_schema=False)(_home)
    return app


async def _captions(request: Request, form: CaptionRequest) -> Response:
    """Describes a sound in one sentence.

    The fields are the options of `earwitness caption`. With `stream` the answer is a series of
    events: `segment` for each, then `done` with the record, or `error`.
    """
    service, kind = _service(request), form.response_format
    check_model(service, form.model)
    upload = uploaded(form.file)
    settings = request_settings(service, form, form.stream or kind in ("srt", "vtt"))
    if form.merge is not None and (kind not in ("srt", "vtt") or form.stream):
        raise ConfigError(
            "merge produces subtitles; expected response_format=srt or vtt, and no stream"
        )
    if form.stream:
        return _streamed(service, _caption_events(service, upload, settings))
    speech = None if form.merge is None else await _subtitles(form.merge)
    result = await _unless_gone(request, service.result(upload, settings))
    return answers.captions(result, kind, service.captioner.name, speech)


SoundFile = Annotated[UploadFile, File(description="A sound or video file.")]
ModelName = Annotated[str, Form(description="Name of the served model, or an alias of it.")]
TranscriptionFormat = Annotated[answers.TranscriptionFormat, Form()]
Temperature = Annotated[
    float, Form(ge=0, le=2, description="Above 0: captions are sampled instead of searched.")
]


async def _transcriptions(
    request: Request,
    file: SoundFile,
    model: ModelName,
    response_format: TranscriptionFormat = "json",
    temperature: Temperature = 0.0,
    timestamp_granularities: Annotated[
        list[str] | None, Form(alias="timestamp_granularities[]")
    ] = None,
    stream: Annotated[bool, Form()] = False,
) -> Response:
    """Sound captions instead of a transcript, for clients of OpenAI's API.

    `language`, `prompt`, `include[]` and `chunking_strategy` are accepted and change nothing.
    """
    service = _service(request)
    check_model(service, model)
    check_granularities(await request.form(), timestamp_granularities)
    timed = stream or response_format in ("srt", "vtt", "verbose_json")
    settings = _sampled(service, temperature, timed)
    if stream:
        return _streamed(service, _transcription_events(service, uploaded(file), settings))
    result = await _unless_gone(request, service.result(uploaded(file), settings))
    assert settings.decoding is not None
    return answers.transcription(result, response_format, settings.decoding)


async def _translations(
    request: Request,
    file: SoundFile,
    model: ModelName,
    response_format: TranscriptionFormat = "json",
    temperature: Temperature = 0.0,
) -> Response:
    """The same captions for clients of OpenAI's translations: captions are English already.

    `prompt` is accepted and changes nothing.
    """
    service = _service(request)
    check_model(service, model)
    settings = _sampled(service, temperature, response_format in ("srt", "vtt", "verbose_json"))
    result = await _unless_gone(request, service.result(uploaded(file), settings))
    assert settings.decoding is not None
    return answers.transcription(result, response_format, settings.decoding, "translate")


def _sampled(service: Service, temperature: float, timed: bool) -> CaptionSettings:
    sampling = {"sample": True, "temperature": temperature} if temperature else {}
    return request_settings(service, validate(CaptionOptions, sampling, "the form"), timed)


@asynccontextmanager
async def _working(service: Service, jobs: Jobs | None) -> AsyncGenerator[None]:
    """Works on jobs meanwhile, if the service takes any."""
    if jobs is None:
        yield
        return
    work = asyncio.create_task(Worker(service, jobs).run())
    try:
        yield
    finally:
        work.cancel()
        await asyncio.wait([work])


async def _models(request: Request) -> dict[str, Any]:
    """The served model under its name and its aliases."""
    service = _service(request)
    names = [service.captioner.name, *service.settings.aliases]
    return {"object": "list", "data": [_model_object(name) for name in names]}


async def _model(request: Request, name: str) -> dict[str, Any]:
    """The served model."""
    check_model(_service(request), name)
    return _model_object(name)


def _model_object(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "earwitness"}


async def _health() -> dict[str, str]:
    """Answers while the process lives."""
    return {"status": "ok"}


async def _ready(request: Request) -> Response:
    """Whether sounds are accepted: 503 while the model loads and after the signal to stop."""
    service = _service(request)
    if service.draining or not service.ready:
        return problem(
            503, f"the service is {'shutting down' if service.draining else 'still loading'}"
        )
    return JSONResponse({"status": "ready", "model": service.captioner.name})


async def _metrics(request: Request) -> Response:
    """Counters in Prometheus' text format."""
    return Response(_service(request).metrics.text(), media_type="text/plain; version=0.0.4")


async def _docs(request: Request) -> Response:
    """The endpoints as a page of their own, which loads nothing from elsewhere."""
    return HTMLResponse(await asyncio.to_thread(api_page.page, request.app.openapi()))


async def _home(request: Request) -> Response:
    return RedirectResponse(f"{_service(request).settings.root_path}/demo/")


async def _icon() -> Response:
    from earwitness.serve.demo import ICON

    return Response(ICON, media_type="image/svg+xml")


async def _caption_events(
    service: Service, upload: Upload, settings: CaptionSettings
) -> AsyncIterator[str]:
    """`segment` events, then `done` with the whole record, or `error`."""
    sound = service.sound(upload.name, settings)
    segments: list[Segment] = []
    try:
        async with aclosing(_in_time(service, upload, sound)) as arriving:
            async for segment in arriving:
                segments.append(segment)
                yield answers.event(segment.as_dict(), "segment")
    except EarwitnessError as error:
        yield answers.event({"error": {"message": str(error)}}, "error")
        return
    result = sound.result_of(segments)
    yield answers.event(result.record(service.captioner.name), "done")


async def _transcription_events(
    service: Service, upload: Upload, settings: CaptionSettings
) -> AsyncIterator[str]:
    """OpenAI's events: `transcript.text.delta` per new caption, then `transcript.text.done`."""
    sound, deltas = service.sound(upload.name, settings), answers.Deltas()
    segments: list[Segment] = []
    try:
        async with aclosing(_in_time(service, upload, sound)) as arriving:
            async for segment in arriving:
                segments.append(segment)
                if delta := deltas.of(segment):
                    yield answers.event({"type": "transcript.text.delta", "delta": delta})
    except EarwitnessError as error:
        yield answers.event({"error": {"message": str(error)}})
        return
    if delta := deltas.rest():
        yield answers.event({"type": "transcript.text.delta", "delta": delta})
    yield answers.event({"type": "transcript.text.done", "text": summary(segments)[0]})
    yield answers.event("[DONE]")


async def _in_time(
    service: Service, upload: Upload, sound: SoundInProgress
) -> AsyncGenerator[Segment, None]:
    """The segments of a sound. Raises LateError when the request times out."""
    limit = service.settings.timeout_seconds
    clock = asyncio.get_running_loop().time
    end = clock() + limit
    async with aclosing(service.segments(upload, sound)) as arriving:
        while True:
            try:
                segment = await asyncio.wait_for(anext(arriving), max(0.0, end - clock()))
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise LateError(_late(limit)) from None
            yield segment


class Events(StreamingResponse):
    """Server-sent events; a client that does not read them is disconnected."""

    def __init__(self, events: AsyncIterator[str], longest: float) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._longest = longest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with anyio.move_on_after(self._longest):
            await super().__call__(scope, receive, send)


def _streamed(service: Service, events: AsyncIterator[str]) -> Events:
    return Events(events, service.settings.timeout_seconds + _READ_SECONDS)


def _late(limit: float) -> str:
    return f"the captions took longer than the limit of {limit:g} s"


async def _unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is stopped when it times out or the client hangs up."""
    limit = _service(request).settings.timeout_seconds
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_hung_up(request))
    try:
        done, _ = await asyncio.wait(
            {task, gone}, timeout=limit, return_when=asyncio.FIRST_COMPLETED
        )
        if task in done:
            return task.result()
        if gone in done:
            raise HTTPException(_CLIENT_GONE, "the client has gone")
        raise HTTPException(503, _late(limit))
    finally:
        task.cancel()
        gone.cancel()


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _service(request: Request) -> Service:
    return request.app.state.service


async def _subtitles(file: FormFile) -> Subtitles:
    """The cues of an uploaded SRT or WebVTT file. Raises AudioTooLargeError and DataError."""
    content = await file.read(_MERGE_BYTES + 1)
    if len(content) > _MERGE_BYTES:
        raise AudioTooLargeError(f"expected at most {_MERGE_BYTES} bytes in merge, got more")
    return read(content, uploaded(file).name)
