"""`earwitness serve`: the HTTP service and its web page."""

import os
import socket
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from earwitness.adapters.settings import AdapterOptions
from earwitness.cli.adapter_options import (
    MODEL_HELP,
    BaseUrl,
    Prompt,
    Quantize,
    Quantized,
    adapter_of,
)
from earwitness.cli.caption_kinds import PRECISION_HELP, Precision
from earwitness.errors import ConfigError, MissingDependencyError, pip_install

if TYPE_CHECKING:
    from earwitness.serve.logs import Logs
    from earwitness.serve.settings import Settings

LOOPBACK = ("localhost", "127.0.0.1", "::1")
KEYS_VARIABLE = "EARWITNESS_API_KEYS"
SECRET_VARIABLE = "EARWITNESS_WEBHOOK_SECRET"

_MODEL, _NET, _RUN, _LIMITS, _JOBS, _LOG = "Model", "Service", "Running", "Limits", "Jobs", "Log"


class LogFormat(StrEnum):
    """The format of log lines."""

    text = "text"
    json = "json"


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
        typer.Option(help="Address to listen on; 0.0.0.0 for all addresses.", rich_help_panel=_NET),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            min=0, max=65535, help="Port to listen on; 0 picks a free one.", rich_help_panel=_NET
        ),
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
            min=1, help="CPU threads for the model; default: one per core.", rich_help_panel=_RUN
        ),
    ] = None,
    precision: Annotated[Precision, typer.Option(help=PRECISION_HELP, rich_help_panel=_RUN)] = (
        Precision.fp32
    ),
    batch_size: Annotated[
        int, typer.Option(min=1, help="Windows per batch.", rich_help_panel=_RUN)
    ] = 8,
    workers: Annotated[
        int,
        typer.Option(
            min=1,
            help="Processes, each with its own copy of the model; --queue, --threads and the limit "
            "on invalid keys apply to each.",
            rich_help_panel=_RUN,
        ),
    ] = 1,
    demo: Annotated[
        bool | None,
        typer.Option(
            "--demo/--no-demo",
            help="Serve the web page. Default: only with one worker, which keeps its state.",
            rich_help_panel=_NET,
        ),
    ] = None,
    rerank: Annotated[
        str | None,
        typer.Option(
            metavar="CLAP",
            help="Let requests rerank their n-best with this CLAP: pocket-link, or a folder.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Host name that the service accepts, such as sounds.example.org or "
            "*.example.org; * for any. Repeatable. Always allowed: localhost, --host.",
            rich_help_panel=_NET,
        ),
    ] = None,
    cors: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            help="Website whose scripts may call the service (CORS), such as "
            "https://sounds.example.org; * for any. Repeatable.",
            rich_help_panel=_NET,
        ),
    ] = None,
    root_path: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="Path prefix of the service behind a proxy, such as /sounds.",
            rich_help_panel=_NET,
        ),
    ] = "",
    jobs: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Accept jobs for long sounds (/v1/jobs), and keep them in this folder.",
            rich_help_panel=_JOBS,
        ),
    ] = None,
    webhook_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Host that jobs may notify when they end, such as hooks.example.org or "
            f"*.example.org. Repeatable. {SECRET_VARIABLE} holds the signing key.",
            rich_help_panel=_JOBS,
        ),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=f"API keys, one per line; or {KEYS_VARIABLE}, separated by commas. Without keys, "
            "the service is open to everyone.",
            rich_help_panel=_NET,
        ),
    ] = None,
    alias: Annotated[
        list[str] | None,
        typer.Option(
            help="Another name for the model in requests. Repeatable. Default: whisper-1.",
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
            min=1, help="Concurrent requests; any more get status 429.", rich_help_panel=_LIMITS
        ),
    ] = 64,
    timeout: Annotated[
        float,
        typer.Option(min=0.1, help="Time limit per request, in seconds.", rich_help_panel=_LIMITS),
    ] = 300.0,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            "-v",
            help="Log one line per request and per step of a job, never their contents.",
            rich_help_panel=_LOG,
        ),
    ] = False,
    log_format: Annotated[
        LogFormat, typer.Option(help="Lines of text, or of JSON objects.", rich_help_panel=_LOG)
    ] = LogFormat.text,
    access_log: Annotated[
        bool,
        typer.Option(
            "--access-log",
            help="Log one line per request: only its path.",
            rich_help_panel=_LOG,
        ),
    ] = False,
) -> None:
    """Serves sound captions over HTTP, and a web page to try them.

    POST /v1/audio/captions and OpenAI's POST /v1/audio/transcriptions;
    /v1/models, /health, /ready, /metrics; /docs lists them all; the page
    is /demo/. Accepted requests are finished before the service stops.
    Environment variables set options, too: EARWITNESS_MAX_MB=50.

    Examples:

      earwitness serve

      earwitness serve --host 0.0.0.0 --keys keys.txt --workers 4

      earwitness serve --jobs /var/lib/earwitness

      curl -F file=@dog.wav http://127.0.0.1:8000/v1/audio/captions
    """
    if demo and workers > 1:
        raise ConfigError(
            f"--workers {workers} and --demo exclude each other: the page keeps its state in one "
            "process"
        )
    demo = workers == 1 if demo is None else demo
    _check_installed(demo)
    from earwitness.serve.logs import Logs
    from earwitness.serve.settings import settings_from

    lists = {"cors_origins": cors, "aliases": alias, "webhook_hosts": webhook_host}
    settings = settings_from(
        max_bytes=round(max_mb * 1e6),
        max_seconds=max_seconds,
        max_requests=queue,
        timeout_seconds=timeout,
        precision=precision.value,
        batch_size=batch_size,
        allowed_hosts=(*LOOPBACK, host, *(allowed_host or ())),
        any_address=host not in LOOPBACK,
        api_keys=_keys(keys),
        root_path=_root_path(root_path),
        jobs=jobs,
        demo=demo,
        **{name: tuple(given) for name, given in lists.items() if given is not None},
    )
    if settings.webhook_hosts and not settings.webhook_secret:
        raise ConfigError(f"--webhook-host needs {SECRET_VARIABLE}, the signing key")
    if settings.jobs is not None:
        from earwitness.serve.jobs import Jobs

        # Detect an unusable folder before loading anything.
        Jobs(settings.jobs)
    listener = _listener(host, port)
    address = f"[{host}]" if ":" in host else host
    url = f"http://{address}:{listener.getsockname()[1]}"
    adapter = adapter_of(prompt, quantize, base_url)
    logs = Logs(log_format.value, verbose, access_log)
    if workers == 1:
        _serve(model, device, adapter, threads, rerank, settings, logs, url, listener)
        return
    from earwitness.serve.workers import run_workers

    threads = threads or max(1, (os.cpu_count() or 1) // workers)
    work = partial(_serve, model, device, adapter, threads, rerank, settings, logs, url)
    if status := run_workers(workers, work, listener):
        raise typer.Exit(status)


def _serve(
    model: str,
    device: str,
    adapter: AdapterOptions,
    threads: int | None,
    rerank: str | None,
    settings: "Settings",
    logs: "Logs",
    url: str,
    listener: socket.socket,
) -> None:
    """Loads the model and serves it, in this process."""
    from earwitness.captioning.captioner import open_captioner, set_threads
    from earwitness.captioning.choice import load_reranker
    from earwitness.serve.server import run

    if threads is not None:
        set_threads(threads)
    captioner = open_captioner(model, device, adapter)
    with captioner.precision(settings.precision):
        pass  # Detect an unsupported number format before serving.
    reranker = load_reranker(rerank, None, captioner)
    typer.echo(f"{captioner.name} listens on {url}", err=True)
    run(captioner, settings, listener, reranker=reranker, logs=logs)


def _root_path(path: str) -> str:
    """The path without a trailing slash. Raises ConfigError."""
    if path.strip("/") and not path.startswith("/"):
        raise ConfigError(f"--root-path {path}: expected a path such as /sounds")
    return path.rstrip("/")


def _check_installed(demo: bool) -> None:
    from importlib.util import find_spec

    install = pip_install("serve,demo" if demo else "serve")
    for module in ("fastapi", "uvicorn", "prometheus_client", "pydantic_settings"):
        if find_spec(module) is None:
            raise MissingDependencyError(f"the service needs the package {module}: {install}")
    if demo and find_spec("gradio") is None:
        raise MissingDependencyError(f"the web page needs gradio: {install}, or --no-demo")


def _keys(path: Path | None) -> tuple[str, ...]:
    """The keys in the file, or else the environment; other users could read a command line."""
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
