"""A service for tests: the real command as a process of its own, or the application in a thread."""

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import soundfile
import uvicorn

from earwitness.captioning.captioner import Captioner
from earwitness.captioning.rerank import Reranker
from earwitness.serve.app import create_app
from earwitness.serve.connections import Server, options
from earwitness.serve.settings import Settings

START_SECONDS = 240
"""for a machine that has much else to do"""


class Process:
    """`earwitness serve` in a home, a working folder and a temporary folder of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        for name in ("home", "work", "tmp"):
            (folder / name).mkdir(parents=True)
        self.log = folder / "log.txt"
        environment = {**os.environ, "HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp")}
        environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        environment |= {"PYTHONDONTWRITEBYTECODE": "1"}
        argv = [sys.executable, "-m", "earwitness", "serve", "--port", "0", *arguments]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                argv, cwd=folder / "work", env=environment, stderr=log, stdout=log
            )
        self.url = self._ready()

    def _ready(self) -> str:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            found = re.search(r"http://\S+", self.log.read_text())
            with contextlib.suppress(httpx.TransportError):
                if found and httpx.get(f"{found.group()}/ready", timeout=30).status_code == 200:
                    return found.group()
            time.sleep(0.1)
        self.process.kill()
        raise AssertionError(f"the service did not start:\n{self.log.read_text()}")

    def files(self) -> list[str]:
        """Every file in the folders of the process."""
        parts = [self.folder / name for name in ("home", "work", "tmp")]
        return [str(path) for part in parts for path in part.rglob("*") if path.is_file()]

    def stop(self) -> int:
        """The exit code after the signal to stop."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(START_SECONDS)


@contextlib.contextmanager
def in_thread(
    captioner: Captioner,
    settings: Settings,
    wait: bool = True,
    reranker: Reranker | None = None,
) -> Iterator[str]:
    """The address of the application in a real server, in a thread of this process."""
    app = create_app(captioner, settings, reranker)
    config = uvicorn.Config(app, port=0, log_level="warning", **options(settings))
    server = Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.02)
        port = server.servers[0].sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        while wait and httpx.get(f"{url}/ready", timeout=30).status_code != 200:
            time.sleep(0.02)
        yield url
    finally:
        server.should_exit = True
        thread.join()


def wav(seconds: float = 1.0, seed: int = 0) -> bytes:
    """White noise as the bytes of a wav file."""
    return sound(noise(seconds, seed))


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    """White noise; asked for here, as its module imports torch."""
    from builders import noise as made

    return made(seconds, seed)


def sound(samples: np.ndarray) -> bytes:
    """The samples as the bytes of a wav file."""
    target = io.BytesIO()
    soundfile.write(target, samples, 16000, format="WAV")
    return target.getvalue()


def noise_silence_noise() -> np.ndarray:
    """60 s in which the middle third is silent."""
    return np.concatenate([noise(20, 1), np.zeros(20 * 16000, np.float32), noise(20, 2)])
