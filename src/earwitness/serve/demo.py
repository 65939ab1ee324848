"""The web page: a sound in, its captions on a timeline out; Gradio, inside the service."""

import asyncio
import re
import warnings
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from fastapi import FastAPI
from gradio.themes import Base
from gradio.utils import get_upload_folder
from starlette._utils import get_route_path
from starlette.responses import PlainTextResponse
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from earwitness import audio
from earwitness.captioning.options import CaptionOptions
from earwitness.captioning.pipeline import CaptionSettings, SoundResult
from earwitness.captioning.rerank import CONSENSUS, Reranker
from earwitness.captioning.segments import Segment
from earwitness.config import validate
from earwitness.errors import EarwitnessError
from earwitness.io.shipped import shipped
from earwitness.serve import card
from earwitness.serve.limits import knows_key, slow_down
from earwitness.serve.options import request_settings
from earwitness.serve.service import Service, Upload
from earwitness.serve.uploads import UploadGate

PATH = "/demo"
_WORDS = 12
_INSIGHT_SECONDS = 30.0
_EXAMPLES = {
    "storm": "Rain and thunder",
    "siren": "A siren",
    "clock": "A ticking clock",
    "alarm": "An alarm",
}

ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">'
    '<rect width="32" height="32" rx="8" fill="#4f46e5"/>'
    '<path d="M7 13v6M12 8v16M17 11v10M22 6v20M27 13v6" stroke="#fff" '
    'stroke-width="2.4" stroke-linecap="round"/></svg>'
)
_HEAD = (
    '<meta name="description" content="Describes any sound in a sentence.">'
    f'<link rel="icon" href="data:image/svg+xml;base64,{b64encode(ICON.encode()).decode()}">'
)

# Gradio has many more routes, some of which fetch URLs or read files for the client.
_ROUTES = re.compile(
    r"/(?:|config/?|theme\.css|login/?|logout|favicon\.ico|manifest\.json|robots\.txt"
    r"|(?:assets|static|svelte)/.*"
    r"|gradio_api/(?:info|app_id|startup-events|upload|upload_progress|theme\.css|reset|cancel"
    r"|queue/(?:join|data)|heartbeat/[\w-]+|file=/(?!/).*))"
)


def mount(app: FastAPI, service: Service) -> None:
    """Puts the page under /demo/; with API keys it asks for one as its password."""
    keys = service.settings.api_keys

    def allowed(_: str, password: str) -> bool:
        return knows_key(keys, password)

    with warnings.catch_warnings():
        # Gradio's own use of names that newer libraries have renamed.
        warnings.simplefilter("ignore", DeprecationWarning)
        blocks = _page(service)
        gr.mount_gradio_app(
            app,
            blocks,
            PATH,
            root_path=f"{service.settings.root_path}{PATH}" if service.settings.root_path else None,
            footer_links=[],
            run_history=False,
            show_error=True,
            max_file_size=service.settings.max_bytes,
            ssr_mode=False,
            mcp_server=False,
            enable_monitoring=False,
            pwa=False,
            theme=_theme(),
            css=_asset("page.css"),
            head=_HEAD,
            auth=allowed if keys else None,
            auth_message="Any user name; the password is an API key." if keys else None,
        )
    for block in blocks.blocks.values():
        block.async_move_resource_to_block_cache = _local_only(block)
    app.add_middleware(UploadGate, service=service, folder=Path(get_upload_folder()))
    app.add_middleware(PageGuard, service=service)
    # Without this Gradio skips its own check of the files that a client names.
    blocks.has_launched = True
    mounted: Any = next(r for r in app.routes if isinstance(r, Mount) and r.path == PATH)
    gradio_app = mounted.app
    app.state.on_drain.append(gradio_app.stop_event.set)


class PageGuard:
    """ASGI middleware: only what the page itself asks for gets through to Gradio.

    An address that tries too many wrong passwords has to wait.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._brake = app, service.brake

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = get_route_path(scope) if scope["type"] == "http" else ""
        inside = path.removeprefix(PATH)
        if (
            scope["type"] == "http"
            and path.startswith(f"{PATH}/")
            and not _ROUTES.fullmatch(inside)
        ):
            await PlainTextResponse("there is nothing here", 404)(scope, receive, send)
            return
        if scope["type"] == "http" and scope["method"] == "POST" and inside.rstrip("/") == "/login":
            await self._login(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _login(self, scope: Scope, receive: Receive, send: Send) -> None:
        if seconds := self._brake.wait(scope):
            await slow_down(seconds)(scope, receive, send)
            return

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                right = message["status"] < 400
                (self._brake.right if right else self._brake.wrong)(scope)
            await send(message)

        await self._app(scope, receive, watched)


def _local_only(block: Any) -> Any:
    """Gradio's way of taking in a file that a client names, limited to uploaded ones."""
    take_in = block.async_move_resource_to_block_cache

    async def checked(path: Any) -> Any:
        return await take_in(_uploaded(path))

    return checked


def _page(service: Service) -> gr.Blocks:
    with gr.Blocks(title="earwitness", analytics_enabled=False, delete_cache=(600, 3600)) as blocks:
        gr.HTML(card.header(service.captioner.name), elem_id="ew-header")
        with gr.Row(elem_id="ew-input", equal_height=True):
            dropped = gr.File(
                label="A sound or a video",
                type="filepath",
                height=168,
                scale=3,
                min_width=280,
                elem_id="ew-drop",
            )
            recorded = gr.Audio(
                sources=["microphone"],
                type="filepath",
                label="Or record",
                buttons=[],
                scale=2,
                min_width=280,
                elem_id="ew-record",
            )
        examples = _example_files()
        with gr.Row(elem_id="ew-examples", visible=bool(examples)):
            gr.HTML("<span>Or try</span>")
            buttons = [(gr.Button(label, size="sm", min_width=0), path) for label, path in examples]
        with gr.Accordion("Options", open=False, elem_id="ew-options"):
            options = _options(service)
        again = gr.Button("Describe the sound", variant="primary", elem_id="ew-go")
        chosen = gr.State(None)
        result = gr.HTML(elem_id="ew-result", js_on_load=_asset("page.js"), apply_default_css=False)
        describe, inputs = _describe(service, list(options)), [chosen, *options.values()]
        quick: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        for source, event in ((dropped, dropped.upload), (recorded, recorded.stop_recording)):
            event(_uploaded, source, chosen, **quick).then(describe, inputs, result, **quick)
            source.clear(lambda: (None, ""), None, [chosen, result], **quick)
        for button, path in buttons:
            taken = button.click(_constant(str(path)), None, chosen, **quick)
            taken.then(describe, inputs, result, **quick)
        again.click(describe, inputs, result, **quick)
    blocks.queue(default_concurrency_limit=service.settings.max_requests, api_open=False)
    return blocks


def _options(service: Service) -> dict[str, Any]:
    """The controls by the name of their field in `CaptionOptions`."""
    own = service.captioner.decoding
    beam = min(own.beam_size, 10)
    with gr.Row():
        n_best = gr.Slider(1, 10, value=5, step=1, label="Captions to compare", min_width=260)
        beams = gr.Slider(1, 10, value=beam, step=1, label="Search beams", min_width=260)
    with gr.Row():
        guide = gr.Slider(
            0, 4, value=1, step=0.1, label="Token Guide", info="0 turns it off", min_width=260,
            visible=service.has_guide,
        )  # fmt: skip
        window = gr.Slider(
            2, 30, value=10, step=1, label="Window", min_width=260,
            info="seconds per segment in longer sounds",
        )  # fmt: skip
    names = [("Probability", ""), ("Agreement among the captions", CONSENSUS)]
    names += [(_second_name(name), name) for name in service.rerankers if name != CONSENSUS]
    rerank = gr.Radio(names, value="", label="Best caption by", elem_id="ew-rerank")
    controls = {"n_best": n_best, "beam": beams, "guide_strength": guide}
    return controls | {"window": window, "rerank": rerank}


def _describe(service: Service, names: list[str]) -> Any:
    """The handler, which takes the values of the options `names`: status lines, then the card."""

    async def describe(path: str | None, *values: Any) -> AsyncIterator[str]:
        if path is None:
            yield card.problem("There is no sound yet: drop a file, record one, or try an example.")
            return
        chosen = {name: value for name, value in zip(names, values, strict=True) if value != ""}
        try:
            settings = request_settings(service, validate(CaptionOptions, chosen, "the page"), True)
            async for html in _captioned(service, Path(path), settings):
                yield html
        except EarwitnessError as error:
            yield card.problem(str(error))

    return describe


async def _captioned(service: Service, path: Path, settings: CaptionSettings) -> AsyncIterator[str]:
    limits, rate = service.settings, service.captioner.sample_rate
    if service.draining or service.in_flight >= limits.max_requests:
        yield card.problem("The service is busy; try again in a moment.")
        return
    service.in_flight += 1
    try:
        yield card.status("Reading the sound")
        with path.open("rb") as file:
            samples = await service.decoded(Upload(path.name, file), limits.demo_max_seconds)
        seconds = len(samples) / rate
        yield card.status(f"Listening to {seconds:.1f} s", 0.0)
        segments: list[Segment] = []
        sound = service.sound(path.name, settings)
        async with aclosing(service.segments((samples, rate), sound)) as arriving:
            async for segment in arriving:
                segments.append(segment)
                yield card.status(f"Listening to {seconds:.1f} s", segment.end / seconds)
        result = SoundResult(path.name, seconds, tuple(segments), whole=False)
        insight = await _insight(service, samples, rate, segments)
        if isinstance(settings.reranker, Reranker):
            insight = replace(insight, second=_second_name(settings.reranker.name))
        yield await asyncio.to_thread(
            card.result, result, samples, rate, insight, service.captioner.name
        )
    finally:
        service.in_flight -= 1


async def _insight(
    service: Service, samples: np.ndarray, rate: int, segments: list[Segment]
) -> card.Insight:
    """Guide and bridge for the longest captioned segment, at most half a minute of it."""
    captioned = [segment for segment in segments if segment.gate is None]
    if not captioned:
        return card.Insight()
    longest = max(captioned, key=lambda segment: segment.end - segment.start)
    end = min(longest.end, longest.start + _INSIGHT_SECONDS)
    part = samples[round(longest.start * rate) : round(end * rate)]
    words = await service.guide_words(part, _WORDS, _others(rate))
    view = await service.bridge_view(part, longest.start, end)
    return card.Insight(card.GuideWords(words, longest.start, end), view)


@cache
def _others(rate: int) -> list[np.ndarray]:
    """The example sounds, which show what the guide does for any sound."""
    return [audio.load(path, rate) for _, path in _example_files()]


def _second_name(name: str) -> str:
    return "agreement" if name == CONSENSUS else f"CLAP ({name})"


def _uploaded(path: Any) -> Any:
    """The path, if it is that of an uploaded file. Raises gr.Error."""
    folder = Path(get_upload_folder()).resolve()
    if path is not None and not Path(path).resolve().is_relative_to(folder):
        raise gr.Error("only an uploaded file can be described", print_exception=False)
    return path


def _constant(value: str) -> Any:
    return lambda: value


def _example_files() -> list[tuple[str, Path]]:
    """The example clips by their labels; none where they did not ship."""
    folder = shipped("examples")
    if folder is None:
        return []
    found = [(text, folder / f"{name}.flac") for name, text in _EXAMPLES.items()]
    return [(text, path) for text, path in found if path.is_file()]


def _asset(name: str) -> str:
    return resources.files("earwitness.serve").joinpath(name).read_text(encoding="utf-8")


def _theme() -> Base:
    """System fonts and one accent: nothing to download."""
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    mono = ["ui-monospace", "SFMono-Regular", "Menlo", "monospace"]
    return Base(
        primary_hue="indigo",
        neutral_hue="slate",
        radius_size="md",
        font=fonts,
        font_mono=mono,
    ).set(block_radius="10px")
