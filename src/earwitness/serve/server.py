"""The process around the application: a private temporary folder, a graceful shutdown."""

import os
import socket
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

import uvicorn

from earwitness.captioning.captioner import Captioner
from earwitness.captioning.rerank import Reranker
from earwitness.serve.connections import Server, options
from earwitness.serve.logs import Logs
from earwitness.serve.settings import Settings

_GRACE_SECONDS = 5


def run(
    captioner: Captioner,
    settings: Settings,
    listener: socket.socket,
    *,
    reranker: Reranker | None = None,
    logs: Logs = Logs(),
) -> None:
    """Serves until SIGINT or SIGTERM, then finishes what was accepted; a second one stops that."""
    with _private_folder():
        from earwitness.serve.app import create_app

        app = create_app(captioner, settings, reranker)

        class Draining(Server):
            def handle_exit(self, sig: int, frame: FrameType | None) -> None:
                # Not uvicorn's own: it ends the process by the same signal, before cleanup.
                self.force_exit = self.should_exit
                self.should_exit = app.state.service.draining = True
                for hook in app.state.on_drain:
                    hook()

        config = uvicorn.Config(
            app,
            log_config=logs.config(),
            access_log=logs.access,
            server_header=False,
            **options(settings),
            timeout_graceful_shutdown=round(2 * settings.timeout_seconds) + _GRACE_SECONDS,
        )
        Draining(config).run(sockets=[listener])


@contextmanager
def _private_folder() -> Generator[None]:
    """All temporary files, the web page's included, in one folder that only this user can read."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="earwitness-serve-") as folder:
        tempfile.tempdir = folder
        os.environ["GRADIO_TEMP_DIR"] = os.path.join(folder, "page")
        # Gradio loads matplotlib, which keeps a list of fonts in the user's home otherwise.
        os.environ.setdefault("MPLCONFIGDIR", os.path.join(folder, "matplotlib"))
        # torch's compilers keep folders beside the temporary files otherwise, and leave them.
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", os.path.join(folder, "inductor"))
        os.environ.setdefault("TRITON_CACHE_DIR", os.path.join(folder, "triton"))
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        try:
            yield
        finally:
            tempfile.tempdir = before
