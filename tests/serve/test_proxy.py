"""`--root-path`: the service below a path of a proxy that takes the path off, or leaves it."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from builders import tiny_exported_folder
from proxy import below
from serving import Process, wav

TIMEOUT = 240
CHROMIUM = next((p for name in ("chromium", "chromium-browser") if (p := shutil.which(name))), None)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    pytest.importorskip("gradio", reason="the web page needs gradio")
    folder = tmp_path_factory.mktemp("service")
    model = tiny_exported_folder(folder / "tiny")
    arguments = ["--model", str(model), "--root-path", "/ears", "--jobs", str(folder / "jobs")]
    running = Process(folder, *arguments)
    yield running
    running.process.kill()
    running.process.wait()


@pytest.fixture(scope="module", params=[True, False], ids=["stripped", "left"])
def url(service: Process, request: pytest.FixtureRequest) -> Iterator[str]:
    with below("/ears", service.url, request.param) as shown:
        yield shown


def test_captions_jobs_and_docs_are_below_the_path(url: str) -> None:
    sound = {"file": ("a.wav", wav())}
    answer = httpx.post(f"{url}/v1/audio/captions", files=sound, timeout=TIMEOUT)
    assert answer.json()["caption"]
    job = httpx.post(f"{url}/v1/jobs", files=sound, timeout=TIMEOUT)
    found = httpx.get(httpx.URL(url).join(job.headers["location"]))
    assert found.json()["id"] == job.json()["id"]
    docs = httpx.get(f"{url}/docs")
    [schema] = re.findall(r"href='(openapi[^']*)'", docs.text)
    served = httpx.get(docs.url.join(schema)).json()
    assert str(docs.url.join(served["servers"][0]["url"])) == url
    home = httpx.get(f"{url}/", follow_redirects=True)
    assert (home.status_code, str(home.url)) == (200, f"{url}/demo/")


def test_streams_are_below_the_path(url: str) -> None:
    client = pytest.importorskip("websockets.sync.client", reason="needs websockets")
    address = url.replace("http", "ws", 1) + "/v1/audio/stream?only=captions"
    with client.connect(address, open_timeout=TIMEOUT) as stream:
        assert json.loads(stream.recv(TIMEOUT))["type"] == "ready"
        stream.send(np.zeros(16_000, "<i2").tobytes())
        stream.send("end")
        kinds = [json.loads(message)["type"] for message in stream]
    assert kinds[-1] == "done"


def test_page_works_below_the_path(url: str, tmp_path: Path) -> None:
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if CHROMIUM is None:
        pytest.skip("needs the program chromium")
    (tmp_path / "a.wav").write_bytes(wav())
    wrong: list[str] = []

    def check(answer: Any) -> None:
        if answer.status >= 400 or not answer.url.startswith((url, "data:", "blob:")):
            wrong.append(f"{answer.status} {answer.url}")

    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(1000 * TIMEOUT)
        page.on("response", check)
        page.goto(f"{url}/")
        page.wait_for_selector("#ew-go")
        page.set_input_files("#ew-drop input[type=file]", str(tmp_path / "a.wav"))
        page.wait_for_selector(".ew-caption")
        assert page.inner_text(".ew-caption").strip()
        browser.close()
    assert wrong == []
