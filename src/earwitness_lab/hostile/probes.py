"""Requests that the service should refuse, or answer as if they were good: never a 5xx."""

import json
import random
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

from earwitness.captioning.captioner import Captioner
from earwitness.captioning.options import CaptionOptions
from earwitness_lab.hostile.campaign import Attempt, Outcome, Section, together
from earwitness_lab.hostile.jobs import tiny_model
from earwitness_lab.hostile.sounds import damaged, files

_PATHS = (
    *("/v1/audio/captions", "/v1/audio/transcriptions", "/v1/audio/translations", "/v1/jobs"),
    *("/v1/models", "/v1/models/x", "/v1/jobs/x", "/v1/jobs/x/result", "/health", "/ready"),
    *("/metrics", "/docs", "/openapi.json", "/", "/demo/", "/v1/../etc/passwd", "/v1/audio/%00"),
    *("//v1/models", "/v1/models/%2e%2e%2f", "/v1/" + "x" * 3000, "/v1/jobs/%ff/result"),
)
_VALUES = (
    *("nan", "inf", "-inf", "1e300", "1e-300", "-1", "0", "2", str(2**64), "9" * 400, "true"),
    *("", " ", "\0", "\u202e", "é" * 300, "'; DROP TABLE jobs; --", "../../etc/passwd", "{}"),
    *("file:///etc/passwd", "http://169.254.169.254/", "${jndi:ldap://x}", "<script>", "text"),
)
_HEADERS = {
    "Host": ("evil.example", "localhost", "localhost:99999", "[::1]", "a@localhost", ""),
    "Content-Length": ("-1", "abc", "99999999999", "1"),
    "Content-Type": ("text/plain", "multipart/form-data", "application/json", "x" * 2000),
    "Authorization": ("Bearer", "Bearer \x7f", "Basic eDp5", "Bearer " + "x" * 5000),
    "Transfer-Encoding": ("chunked", "gzip"),
    "Range": ("bytes=0-0", "bytes=-1"),
    "Origin": ("null", "https://evil.example"),
}
_FIELDS = (
    *CaptionOptions.model_fields,
    *("response_format", "stream", "model", "merge", "webhook", "timestamp_granularities[]", "x"),
)


def section(place: Path, numbers: range, seed: int) -> Section:
    """The row `probes`: 5xx counts as a traceback, an error without one sentence as lost."""
    model = tiny_model(place)
    jobs = place / "jobs"
    return together("probes", _attempts(model, jobs, numbers, seed))


def _attempts(model: str, jobs: Path, numbers: range, seed: int) -> Iterator[Attempt]:
    sounds = list(files().values())
    for number in numbers:
        rng = random.Random(seed * 1_000_003 + number)
        asked = request(rng, sounds)
        yield Attempt(
            f"{number} {asked['method']} {asked['url'][:60]} {asked.get('data')}",
            partial(_sent, model, jobs, asked),
        )


def request(rng: random.Random, sounds: list[bytes]) -> dict[str, Any]:
    """A request as `httpx.Client.request` takes it."""
    method = rng.choice(
        ("POST", "POST", "POST", "GET", "HEAD", "DELETE", "PUT", "OPTIONS", "TRACE")
    )
    posts = _PATHS[:4] if method == "POST" and rng.random() < 0.8 else _PATHS
    asked: dict[str, Any] = {"method": method, "url": rng.choice(posts)}
    if rng.random() < 0.3:
        name = rng.choice(tuple(_HEADERS))
        asked["headers"] = {name: rng.choice(_HEADERS[name])}
    if method != "POST":
        return asked
    if rng.random() < 0.1:
        return {**asked, "content": rng.randbytes(rng.randint(0, 3000))}
    _, broken = damaged(rng, rng.choice(sounds), rng.choice(sounds))
    contents = rng.choice((rng.choice(sounds), broken, b""))
    asked["data"] = {rng.choice(_FIELDS): rng.choice(_VALUES) for _ in range(rng.randint(0, 3))}
    asked["data"] |= {"model": "whisper-1"} if rng.random() < 0.7 else {}
    field = rng.choice(("file", "file", "file", "merge", "sound"))
    asked["files"] = {field: (rng.choice(("a.wav", "", "\udc80.wav", "a" * 500)), contents)}
    return asked


def _sent(model: str, jobs: Path, asked: dict[str, Any]) -> Outcome:
    try:
        answer = _client(model, jobs).request(**asked)
    except (UnicodeError, ValueError):
        # What the client itself cannot send.
        return "refused"
    if answer.status_code >= 500:
        raise RuntimeError(f"status {answer.status_code}: {answer.text[:200]}")
    if answer.status_code < 400:
        return "captioned"
    if asked["method"] in ("HEAD", "OPTIONS"):
        return "refused"
    sentence = json.loads(answer.text)["error"]["message"]
    return "refused" if sentence.strip() and "\n" not in sentence else "lost"


@cache
def _client(model: str, jobs: Path) -> Any:
    """A client of the application in this process, which runs until the process ends."""
    from fastapi.testclient import TestClient

    from earwitness.serve.app import create_app
    from earwitness.serve.settings import Settings

    app = create_app(Captioner.load(model), Settings(demo=False, jobs=jobs))
    client = TestClient(app, base_url="http://localhost", raise_server_exceptions=False)
    client.__enter__()
    while client.get("/ready").status_code != 200:
        pass
    return client
