"""What a company asks of a service: workers, proxies, other sites, variables, logs, docs."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
import yaml
from builders import tiny_captioner
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from serving import Process, in_thread, wav
from typer.testing import CliRunner

from earwitness.cli import app
from earwitness.serve.app import create_app
from earwitness.serve.logs import Lines, Logs
from earwitness.serve.settings import Settings, settings_from
from earwitness.system.captioner import TorchCaptioner

TIMEOUT = 120
ROOT = Path(__file__).resolve().parents[2]
SITE = "https://sounds.example.org"


@pytest.fixture(scope="module")
def captioner() -> TorchCaptioner:
    return tiny_captioner()


@pytest.fixture(scope="module")
def url(captioner: TorchCaptioner) -> Iterator[str]:
    with in_thread(captioner, Settings(demo=False, cors_origins=(SITE,))) as running:
        yield running


def caption(url: str, **headers: str) -> httpx.Response:
    files = {"file": ("a.wav", wav())}
    return httpx.post(f"{url}/v1/audio/captions", files=files, headers=headers, timeout=TIMEOUT)


@pytest.mark.parametrize("path", ["/v1/models", "/docs", "/openapi.json", "/health", "/metrics"])
def test_head_is_get_without_the_body(url: str, path: str) -> None:
    head, get = httpx.head(f"{url}{path}"), httpx.get(f"{url}{path}")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]


def test_scripts_of_the_named_site_may_ask_and_no_others(url: str) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-any"}
    for site, allowed in ((SITE, SITE), ("https://evil.example", None)):
        answer = httpx.options(f"{url}/v1/audio/captions", headers={"Origin": site, **asked})
        assert answer.headers.get("Access-Control-Allow-Origin") == allowed
    answer = caption(url, Origin=SITE)
    assert answer.headers["Access-Control-Allow-Origin"] == SITE
    assert "X-Notes" in answer.headers["Access-Control-Expose-Headers"]


def test_no_site_may_ask_unless_one_is_named(captioner: TorchCaptioner) -> None:
    client = TestClient(create_app(captioner, Settings(demo=False)), base_url="http://localhost")
    answer = client.get("/health", headers={"Origin": SITE})
    assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("prefix", ["", "/sounds"])
def test_service_below_a_path_answers_proxies_that_strip_it_and_others(
    captioner: TorchCaptioner, prefix: str
) -> None:
    settings = Settings(demo=False, root_path="/sounds", api_keys=("key",))
    client = TestClient(create_app(captioner, settings), base_url="http://localhost")
    assert client.get(f"{prefix}/v1/models").status_code == 401
    models = client.get(f"{prefix}/v1/models", headers={"Authorization": "Bearer key"})
    assert models.json()["data"][0]["id"] == captioner.name
    schema = client.get(f"{prefix}/openapi.json").json()
    assert schema["servers"] == [{"url": "/sounds"}]


def test_docs_page_names_every_endpoint_and_loads_nothing(url: str) -> None:
    page = httpx.get(f"{url}/docs").text
    for path, methods in httpx.get(f"{url}/openapi.json").json()["paths"].items():
        for method in methods:
            assert f"{method.upper()} {path}</h2>" in page
    for word in ("<script", "src=", "http://", "https://", "@import", "url("):
        assert word not in page.replace(SITE, "")
    assert "<code>guide_strength</code>" in page


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_openai_client_translates(url: str, captioner: TorchCaptioner) -> None:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", timeout=TIMEOUT)
    sound = ("a.wav", wav())
    text = client.audio.translations.create(file=sound, model="whisper-1").text
    assert text == caption(url).json()["caption"]
    verbose = client.audio.translations.create(
        file=sound, model="whisper-1", response_format="verbose_json", prompt="x"
    )
    assert (verbose.language, verbose.text, len(verbose.segments)) == ("english", text, 1)
    assert verbose.task == "translate"


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MAX_BEAMS": "4", "ALIASES": "a, b", "DEMO": "false"}.items():
        monkeypatch.setenv(f"EARWITNESS_{name}", value)
    found = settings_from(max_requests=3)
    assert (found.max_beams, found.aliases, found.demo) == (4, ("a", "b"), False)
    assert (found.max_requests, found.max_windows) == (3, 4000)
    assert settings_from(max_beams=5).max_beams == 5


@pytest.mark.parametrize(
    ("name", "value", "code", "sentence"),
    [
        ("PORT", "many", 2, "Invalid value for '--port'"),
        ("MAX_BEAMS", "none", 1, "EARWITNESS_MAX_BEAMS: input should be a valid integer"),
        ("ROOT_PATH", "sounds", 1, "expected a path such as /sounds"),
        ("WEBHOOK_HOST", "a.example", 1, "needs EARWITNESS_WEBHOOK_SECRET"),
        ("JOBS", "/dev/null/jobs", 1, "--jobs /dev/null/jobs: cannot be used"),
    ],
)
def test_bad_variable_gets_one_sentence(name: str, value: str, code: int, sentence: str) -> None:
    arguments = ["serve", "--no-demo", "--port", "0"]
    arguments = [one for one in arguments if name != "PORT" or one not in ("--port", "0")]
    found = CliRunner().invoke(app, arguments, env={f"EARWITNESS_{name}": value})
    assert sentence in " ".join(f"{found.stderr} {found.exception}".split())
    assert found.exit_code == code


def test_page_and_several_workers_exclude_each_other() -> None:
    found = CliRunner().invoke(app, ["serve", "--workers", "2", "--demo"])
    assert "exclude each other" in str(found.exception)


def test_log_lines_are_json_and_hold_nothing_of_the_content(tmp_path: Path) -> None:
    running = Process(tmp_path, "--no-demo", "--verbose", "--log-format", "json")
    text = caption(running.url).json()["caption"]
    httpx.post(f"{running.url}/v1/audio/captions", files={"file": ("secret.wav", b"x")})
    assert running.stop() == 0
    lines = running.log.read_text().splitlines()
    assert "listens on" in lines.pop(0)
    told = [json.loads(line) for line in lines]
    assert [(one["path"], one["status"]) for one in told if one["event"] == "request"] == [
        ("/v1/audio/captions", 200),
        ("/v1/audio/captions", 415),
    ]
    assert {"time", "level", "method", "seconds"} <= set(told[0])
    assert text not in running.log.read_text()
    assert "secret" not in running.log.read_text()


def test_log_is_quiet_unless_it_is_asked_for() -> None:
    quiet, verbose = Logs().config()["loggers"], Logs(verbose=True).config()["loggers"]
    assert (quiet["earwitness"]["level"], verbose["earwitness"]["level"]) == ("WARNING", "INFO")
    import logging

    record = logging.LogRecord("x", logging.INFO, "", 0, "job", None, None)
    record.fields = {"id": "a", "status": "done"}
    assert Lines().format(record).endswith("INFO job id=a status=done")


def process_ids(running: Process) -> set[int]:
    children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children")
    found = [int(one) for one in children.read_text().split()]
    return {one for one in found if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes()}


def requests_counted(url: str) -> float:
    families = text_string_to_metric_families(httpx.get(f"{url}/metrics").text)
    samples = [one for family in families for one in family.samples]
    counted = [one for one in samples if one.name == "earwitness_requests_total"]
    return sum(one.value for one in counted if one.labels["status"] == "200")


def test_workers_share_the_work_are_replaced_and_stop_together(tmp_path: Path) -> None:
    running = Process(tmp_path, "--workers", "2")
    end = time.monotonic() + TIMEOUT
    while running.log.read_text().count("listens on") < 2:
        assert time.monotonic() < end
        time.sleep(0.1)
    texts: list[str] = []
    while len(texts) < 8:
        assert time.monotonic() < end
        answer = caption(running.url)
        if answer.status_code != 503:  # a worker may still be loading while the other one answers
            texts.append(answer.json()["caption"])
    assert len(set(texts)) == 1
    assert requests_counted(running.url) == 8
    time.sleep(10)  # one that lives shorter is not replaced
    first = process_ids(running)
    assert len(first) == 2
    os.kill(min(first), signal.SIGKILL)
    while len(now := process_ids(running)) < 2 or now == first:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert caption(running.url).status_code == 200
    assert running.stop() == 0
    assert not any(Path(f"/proc/{one}").exists() for one in now)
    assert running.files() == []


def test_deployment_files_name_options_and_paths_that_exist(captioner: TorchCaptioner) -> None:
    paths = set(create_app(captioner, Settings(demo=False)).openapi()["paths"])
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
    (service,) = compose["services"].values()
    documents = list(yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text()))
    (deployment,) = [one for one in documents if one["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] in paths
    import typer

    command = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    variables = {f"EARWITNESS_{one.name.upper()}" for one in command.params}
    variables |= {f"EARWITNESS_{name.upper()}" for name in Settings.model_fields}
    assert {one["name"] for one in container["env"]} <= variables
    assert set(service["environment"]) <= variables
