"""`earwitness serve`: the HTTP service and its web page."""

import os
import socket
from pathlib import Path
from typing import Annotated

import typer

from earwitness.errors import ConfigError, MissingDependencyError

KEYS_VARIABLE = "EARWITNESS_API_KEYS"

_LIMITS = "Limits"


def serve(
    model: Annotated[str, typer.Option(help="A pocket model, or a model folder.")] = "pocket-lamb",
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for all of this machine's.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of the model; default: one a core.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Windows at once.")] = 8,
    demo: Annotated[bool, typer.Option("--demo/--no-demo", help="Serve the web page.")] = True,
    rerank: Annotated[
        str | None,
        typer.Option(
            metavar="CLAP",
            help="Let requests choose among their n-best with this CLAP: pocket-link, or a folder.",
        ),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=f"API keys, a line each; or {KEYS_VARIABLE}, with commas. Without: open to all.",
        ),
    ] = None,
    alias: Annotated[
        list[str] | None,
        typer.Option(help="Another name that clients may give the model; default whisper-1."),
    ] = None,
    max_mb: Annotated[
        float, typer.Option(min=0.001, help="Largest upload.", rich_help_panel=_LIMITS)
    ] = 200.0,
    max_seconds: Annotated[
        float, typer.Option(min=0.1, help="Longest sound.", rich_help_panel=_LIMITS)
    ] = 3600.0,
    queue: Annotated[
        int, typer.Option(min=1, help="Requests at once; then 429.", rich_help_panel=_LIMITS)
    ] = 64,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds for a request.", rich_help_panel=_LIMITS)
    ] = 300.0,
    access_log: Annotated[
        bool, typer.Option("--access-log", help="A line for each request: its path, nothing more.")
    ] = False,
) -> None:
    """Serves sound captions over HTTP, and a web page to try them.

    POST /v1/audio/captions and OpenAI's POST /v1/audio/transcriptions;
    /v1/models, /health, /ready, /metrics; the page is /demo/. The signal to stop
    lets accepted requests finish.

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
        api_keys=_keys(keys),
        aliases=tuple(alias) if alias is not None else ("whisper-1",),
        demo=demo,
    )
    listener = _listener(host, port)
    from earwitness.captioning.captioner import Captioner
    from earwitness.cli.caption_job import load_reranker
    from earwitness.serve.server import run

    if threads is not None:
        from earwitness.captioning.captioner import set_threads

        set_threads(threads)
    captioner = Captioner.load(model, device)
    reranker = load_reranker(rerank, None, captioner)
    address = f"[{host}]" if ":" in host else host
    typer.echo(
        f"{captioner.name} listens on http://{address}:{listener.getsockname()[1]}", err=True
    )
    run(captioner, settings, listener, reranker=reranker, access_log=access_log)


def _check_installed(demo: bool) -> None:
    from importlib.util import find_spec

    for module, extra in (
        ("fastapi", "serve"),
        ("uvicorn", "serve"),
        ("prometheus_client", "serve"),
    ):
        if find_spec(module) is None:
            raise MissingDependencyError(
                f"the service needs the package {module}; pip install 'earwitness[{extra}]'"
            )
    if demo and find_spec("gradio") is None:
        raise MissingDependencyError(
            "the web page needs the package gradio; pip install 'earwitness[demo]', or --no-demo"
        )


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
        raise ConfigError(f"--keys {path}: holds no key; expected one a line")
    return keys


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else str(error)
        raise ConfigError(
            f"cannot listen on {host} port {port} ({reason}); another --port or --host may do"
        ) from None
