"""The page that captions in the browser says what Python says."""

import http.server
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile

from earwitness import Captioner
from earwitness.browser.page import PACKAGE, VERSION, write_page
from earwitness.errors import ConfigError, MissingDependencyError

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CHROMIUM = next((p for name in ("chromium", "chromium-browser") if (p := shutil.which(name))), None)
DONE = "['Done', ''].includes(document.getElementById('status').textContent)"


class Files(http.server.SimpleHTTPRequestHandler):
    """Static files with the types that modules need."""

    extensions_map = {
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def tarball(tmp_path_factory) -> Path:
    """The npm package; skips where npm cannot fetch it."""
    if shutil.which("npm") is None:
        pytest.skip(f"needs npm, which fetches {PACKAGE}")
    place = tmp_path_factory.mktemp("npm")
    command = ["npm", "pack", f"{PACKAGE}@{VERSION}", "--silent", "--pack-destination", str(place)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=place)
    found = sorted(place.glob("*.tgz"))
    if run.returncode or not found:
        pytest.skip(f"needs {PACKAGE} {VERSION}, which npm cannot fetch here")
    return found[0]


@pytest.fixture(scope="module")
def folder(tarball, tmp_path_factory) -> Path:
    """The page of pocket-lamb."""
    place = tmp_path_factory.mktemp("page")
    write_page("pocket-lamb", place, tarball)
    return place


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """Headless Chromium; skips where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if CHROMIUM is None:
        pytest.skip("needs the program chromium")
    switches = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=switches)
        yield started
        started.close()


def serve(folder: Path) -> http.server.ThreadingHTTPServer:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def stop(server: http.server.ThreadingHTTPServer) -> None:
    server.shutdown()
    server.server_close()


def open_page(browser, url: str):
    page = browser.new_context().new_page()
    page.goto(url)
    ready(page)
    return page


def ready(page) -> None:
    page.wait_for_selector("#file:not([disabled])", state="attached", timeout=200_000)


def caption(page, file: Path) -> str:
    page.set_input_files("#file", str(file))
    page.wait_for_function(DONE, timeout=200_000)
    shown = "#error" if page.is_visible("#error") else "#headline"
    text = page.inner_text(shown)
    page.evaluate("document.getElementById('status').textContent = 'next'")
    return text


def test_browser_says_what_python_says_and_works_offline(browser, folder, tmp_path) -> None:
    server = serve(folder)
    page = open_page(browser, f"http://127.0.0.1:{server.server_port}/")
    storm, rate = soundfile.read(EXAMPLES / "storm.flac", dtype="float32")
    soundfile.write(tmp_path / "still.wav", np.pad(storm, (2 * rate, 5 * rate // 2)), rate)
    files = [*sorted(EXAMPLES.glob("*.flac")), tmp_path / "still.wav"]
    captioner = Captioner.load("pocket-lamb")
    expected = [one.text for one in captioner.caption_batch(map(str, files))]
    assert [caption(page, file) for file in files] == expected
    (row,) = page.locator("#segments li").all_inner_texts()
    assert re.fullmatch(r"00:00 - 00:\d\d\n.+\n0\.\d\d", row)
    stop(server)
    page.reload()
    ready(page)
    assert caption(page, files[0]) == expected[0]


def test_long_sound_has_times_and_subtitles(browser, folder, tmp_path) -> None:
    clock, rate = soundfile.read(EXAMPLES / "clock.flac", dtype="float32")
    siren, _ = soundfile.read(EXAMPLES / "siren.flac", dtype="float32")
    still = np.zeros(10 * rate, np.float32)
    parts = [clock[: 10 * rate], still, siren[: 10 * rate]]
    soundfile.write(tmp_path / "long.wav", np.concatenate(parts), rate)
    server = serve(folder)
    page = open_page(browser, f"http://127.0.0.1:{server.server_port}/")
    headline = caption(page, tmp_path / "long.wav")
    assert "clock" in headline
    assert "siren" in headline
    rows = page.locator("#segments li").all_inner_texts()
    assert [row.split("\n")[0] for row in rows] == [
        "00:00 - 00:10",
        "00:10 - 00:20",
        "00:20 - 00:30",
    ]
    assert "no distinct sound" in rows[1]
    srt = page.evaluate("fetch(document.getElementById('srt').href).then((r) => r.text())")
    assert srt.count("-->") == 2
    assert "00:00:20,000 --> 00:00:30,000" in srt
    stop(server)


def test_damaged_file_gets_a_sentence(browser, folder, tmp_path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"RIFF but not a sound")
    server = serve(folder)
    page = open_page(browser, f"http://127.0.0.1:{server.server_port}/")
    assert caption(page, tmp_path / "bad.wav").startswith("bad.wav: this browser cannot read it")
    stop(server)


def test_other_tarball_is_refused(tmp_path) -> None:
    (tmp_path / "other.tgz").write_bytes(b"not it")
    with pytest.raises(ConfigError, match=f"is not the tarball of {PACKAGE} {VERSION}"):
        write_page("pocket-lamb", tmp_path / "page", tmp_path / "other.tgz")


def test_missing_npm_is_said(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("earwitness.browser.page.shutil.which", lambda _: None)
    with pytest.raises(MissingDependencyError, match="npm is not installed"):
        write_page("pocket-lamb", tmp_path / "page")
