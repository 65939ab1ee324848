"""`earwitness serve`: the HTTP service and its web page."""

import os
import socket
from pathlib import Path
from typing import Annotated

import typer

from earwitness.cli.adapter_options import (
    MODEL_HELP,
    BaseUrl,
    Prompt,
    Quantize,
    Quantized,
    adapter_of,
)
from earwitness.errors import ConfigError, MissingDependencyError, pip_install

LOOPBACK = ("localhost", "127.0.0.1", "::1")
KEYS_VARIABLE = "EARWITNESS_API_KEYS"

_MODEL, _NET, _RUN, _LIMITS = "Model", "Service", "Running", "Limits"


def serve(
    model: Annotated[
        str,
        typer.Option(
            help=MODEL_HELP,
            rich_help_panel=_MODEL,
        ),
    ] = "pocket-lamb",
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on; 0.0.0.0 for all of this machine's.", rich_help_panel=_NET
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="0 takes a free one.", rich_help_panel=_NET)
    ] = 8000,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.", rich_help_panel=_RUN)
    ] = "auto",
    prompt: Prompt = None,
    quantize: Quantized = Quantize.none,
    base_url: BaseUrl = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, help="CPU threads of the model; default: one per core.", rich_help_panel=_RUN
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Windows per batch.", rich_help_panel=_RUN)
    ] = 8,
    demo: Annotated[
        bool, typer.Option("--demo/--no-demo", help="Serve the web page.", rich_help_panel=_NET)
    ] = True,
    rerank: Annotated[
        str | None,
        typer.Option(
            metavar="CLAP",
            help="Let requests choose among their n-best by this CLAP: pocket-link, or a folder.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A name under which the service may be asked, such as sounds.example.org or "
            "\\*.example.org; \\* for any; repeat it. Always: localhost, and --host.",
            rich_help_panel=_NET,
        ),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=f"API keys, one per line; or {KEYS_VARIABLE}, separated by commas. Without keys, "
            "the service is open to all.",
            rich_help_panel=_NET,
        ),
    ] = None,
    alias: Annotated[
        list[str] | None,
        typer.Option(
            help="Another name for the model in requests; repeat it. Default: whisper-1.",
            rich_help_panel=_NET,
        ),
    ] = None,
    max_mb: Annotated[
        float, typer.Option(min=0.001, help="Largest upload, in MB.", rich_help_panel=_LIMITS)
    ] = 200.0,
    max_seconds: Annotated[
        float, typer.Option(min=0.1, help="Longest sound, in seconds.", rich_help_panel=_LIMITS)
    ] = 3600.0,
    queue: Annotated[
        int,
        typer.Option(
            min=1, help="Requests at a time; further ones get 429.", rich_help_panel=_LIMITS
        ),
    ] = 64,
    timeout: Annotated[
        float,
        typer.Option(min=0.1, help="Seconds that a request may take.", rich_help_panel=_LIMITS),
    ] = 300.0,
    access_log: Annotated[
        bool,
        typer.Option(
            "--access-log",
            help="Log one line per request: its path, nothing more.",
            rich_help_panel=_NET,
        ),
    ] = False,
) -> None:
    """Serves sound captions over HTTP, and a web page to try them.

    POST /v1/audio/captions and OpenAI's POST /v1/audio/transcriptions;
    /v1/models, /health, /ready, /metrics; the page is /demo/. Accepted
    requests are finished before the service stops.

    Examples:

      earwitness serve

      earwitness serve --host 0.0.0.0 --keys keys.txt --no-demo

      curl -F file=@dog.wav http://127.0.0.1:8000/v1/audio/captions
    """
    _check_installed(demo)
    from earwitness.serve.settings import Settings

    settings = Settings(
        max_bytes=round(max_mb * 1e6),
        max_seconds=max_seconds,
        max_requests=queue,
        timeout_seconds=timeout,
        batch_size=batch_size,
        allowed_hosts=(*LOOPBACK, host, *(allowed_host or ())),
        any_address=host not in LOOPBACK,
        api_keys=_keys(keys),
        aliases=tuple(alias) if alias is not None else ("whisper-1",),
        demo=demo,
    )
    listener = _listener(host, port)
    from earwitness.captioning.captioner import open_captioner
    from earwitness.captioning.choice import load_reranker
    from earwitness.serve.server import run

    if threads is not None:
        from earwitness.captioning.captioner import set_threads

        set_threads(threads)
    captioner = open_captioner(model, device, adapter_of(prompt, quantize, base_url))
    reranker = load_reranker(rerank, None, captioner)
    address = f"[{host}]" if ":" in host else host
    typer.echo(
        f"{captioner.name} listens on http://{address}:{listener.getsockname()[1]}", err=True
    )
    run(captioner, settings, listener, reranker=reranker, access_log=access_log)


def _check_installed(demo: bool) -> None:
    from importlib.util import find_spec

    install = pip_install("serve,demo" if demo else "serve")
    for module in ("fastapi", "uvicorn", "prometheus_client"):
        if find_spec(module) is None:
            raise MissingDependencyError(f"the service needs the package {module}: {install}")
    if demo and find_spec("gradio") is None:
        raise MissingDependencyError(f"the web page needs gradio: {install}, or --no-demo")


def _keys(path: Path | None) -> tuple[str, ...]:
    """The keys of the file, or else of the environment; others could read a command line."""
    if path is None:
        lines = os.environ.get(KEYS_VARIABLE, "").split(",")
        return tuple(key.strip() for key in lines if key.strip())
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--keys {path}: cannot be read ({error})") from None
    keys = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not keys:
        raise ConfigError(f"--keys {path}: contains no key; expected one per line")
    return keys


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else str(error)
        raise ConfigError(
            f"cannot listen on {host} port {port} ({reason}); choose another --port or --host"
        ) from None
