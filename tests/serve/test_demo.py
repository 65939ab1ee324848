"""The web page in a real browser, offline, and what its server refuses."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import soundfile
from builders import tiny_exported_folder
from link_parts import tiny_dual, untrained_link
from serving import Process, noise_silence_noise, wav

from earwitness.encoders import save_embedding_encoder

TIMEOUT = 240

CHROMIUM = next((p for name in ("chromium", "chromium-browser") if (p := shutil.which(name))), None)
PHONE = {"width": 360, "height": 740}
DESKTOP = {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    pytest.importorskip("gradio", reason="the web page needs gradio")
    model = tiny_exported_folder(tmp_path_factory.mktemp("model") / "tiny")
    running = Process(tmp_path_factory.mktemp("service"), "--model", str(model), "--max-mb", "5")
    yield running
    running.process.kill()
    running.process.wait()


@pytest.fixture(scope="module")
def link_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """The page of a Diffusion-Link model with a second CLAP to rerank by."""
    pytest.importorskip("gradio", reason="the web page needs gradio")
    folder = tmp_path_factory.mktemp("link")
    untrained_link().save(folder / "model")
    save_embedding_encoder(tiny_dual(seed=3), folder / "other")
    running = Process(
        tmp_path_factory.mktemp("service"),
        *("--model", str(folder / "model"), "--rerank", str(folder / "other")),
    )
    yield running
    running.process.kill()
    running.process.wait()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if CHROMIUM is None:
        pytest.skip("needs the program chromium")
    switches = ["--no-sandbox", "--disable-background-networking"]
    switches += ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=switches)
        yield started
        started.close()


class Page:
    """The page with a record of all that must not happen on it."""

    def __init__(self, browser: Any, url: str, viewport: dict[str, int]) -> None:
        self.page = browser.new_page(viewport=viewport)
        self.page.set_default_timeout(TIMEOUT * 1000)
        self.complaints: list[str] = []
        self.page.on("console", lambda m: self._note(m.type == "error", m.text))
        self.page.on("pageerror", lambda error: self._note(True, str(error)))
        self.page.on(
            "request", lambda r: self._note(not r.url.startswith((url, "data:", "blob:")), r.url)
        )
        self.page.on("response", lambda r: self._note(r.status >= 400, f"{r.status} {r.url}"))
        self.page.goto(url)
        self.page.wait_for_selector("#ew-go")

    def _note(self, wrong: bool, text: str) -> None:
        if wrong:
            self.complaints.append(text)

    def drop(self, path: Path) -> None:
        self.page.set_input_files("#ew-drop input[type=file]", str(path))

    def fits(self) -> bool:
        return self.page.evaluate(
            "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        )


@pytest.fixture
def page(browser: Any, service: Process) -> Iterator[Page]:
    made = Page(browser, service.url, DESKTOP)
    yield made
    made.page.close()


@pytest.fixture
def long_sound(tmp_path: Path) -> Path:
    path = tmp_path / "walk.flac"
    soundfile.write(path, noise_silence_noise(), 16000)
    return path


def test_dropped_sound_is_captioned_and_its_segments_drawn(page: Page, long_sound: Path) -> None:
    page.drop(long_sound)
    page.page.wait_for_selector(".ew-card")
    assert page.page.inner_text(".ew-caption").strip() != ""
    assert "walk.flac" in page.page.inner_text(".ew-meta")
    plot = page.page.locator(".ew-plot").bounding_box()
    bars = [b.bounding_box() for b in page.page.locator(".ew-segment").all()]
    assert len(bars) >= 3
    assert bars[0]["x"] == pytest.approx(plot["x"], abs=3)
    assert sum(bar["width"] for bar in bars) == pytest.approx(plot["width"], abs=6)
    silent = page.page.locator(".ew-closed").bounding_box()
    assert silent["width"] == pytest.approx(plot["width"] / 3, rel=0.05)
    page.page.wait_for_function("document.querySelector('.ew-plot img').complete")
    drawn = page.page.evaluate(
        "[document.querySelector('.ew-plot img').naturalWidth,"
        " document.querySelector('.ew-plot path').getBBox().width]"
    )
    assert drawn[0] > 100
    assert drawn[1] > 900
    assert page.complaints == []


def test_segment_button_plays_from_its_start(page: Page, long_sound: Path) -> None:
    page.drop(long_sound)
    page.page.wait_for_selector(".ew-card audio")
    page.page.wait_for_function("document.querySelector('audio').readyState >= 1")
    button = page.page.locator(".ew-closed button")
    button.focus()
    page.page.keyboard.press("Enter")
    page.page.wait_for_function("document.querySelector('audio').currentTime >= 19.9")
    # The headline follows the player's next event.
    page.page.wait_for_function(
        "document.querySelector('.ew-caption').innerText === 'No distinct sound.'"
    )
    assert page.complaints == []


def test_downloads_hold_subtitles_and_record(page: Page, long_sound: Path) -> None:
    page.drop(long_sound)
    page.page.wait_for_selector(".ew-card")
    with page.page.expect_download() as download:
        page.page.get_by_role("link", name="SRT").click()
    assert download.value.suggested_filename == "walk.srt"
    text = Path(download.value.path()).read_text(encoding="utf-8")
    assert text.startswith("1\n00:00:00,000 --> 00:00:20,000\n")
    with page.page.expect_download() as download:
        page.page.get_by_role("link", name="JSON").click()
    assert '"segments"' in Path(download.value.path()).read_text(encoding="utf-8")


def test_example_shows_n_best_on_a_phone(browser: Any, service: Process) -> None:
    phone = Page(browser, service.url, PHONE)
    assert phone.fits()
    phone.page.get_by_role("button", name="A ticking clock").click()
    phone.page.wait_for_selector(".ew-card")
    assert phone.page.locator("section", has_text="Best captions").locator("li").count() == 5
    assert phone.fits()
    assert phone.complaints == []
    phone.page.close()


def numbers(page: Any, selector: str) -> list[float]:
    return [float(text) for text in page.locator(selector).all_inner_texts()]


def test_page_of_a_lamb_model_says_nothing_of_a_bridge(page: Page) -> None:
    page.page.get_by_role("button", name="A siren").click()
    page.page.wait_for_selector(".ew-card")
    assert page.page.locator(".ew-bridge").count() == 0
    assert page.page.locator(".ew-second").count() == 0


@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_page_of_a_link_model_shows_the_sound_before_and_after_the_bridge(
    browser: Any, link_service: Process, viewport: dict[str, int]
) -> None:
    shown = Page(browser, link_service.url, viewport)
    shown.page.get_by_role("button", name="A siren").click()
    rows = shown.page.locator(".ew-bridge tbody tr")
    rows.first.wait_for()
    assert rows.locator("th").all_inner_texts() == ["Without", "With", "Text"]
    distances = numbers(shown.page, ".ew-bridge td:nth-child(n + 3)")
    assert len(distances) == 6
    assert all(0 <= value <= 2 for value in distances)
    assert distances[:2] != distances[2:4]
    assert shown.fits()
    assert shown.complaints == []
    shown.page.close()


def test_chosen_clap_orders_the_best_captions(browser: Any, link_service: Process) -> None:
    shown = Page(browser, link_service.url, DESKTOP)
    shown.page.get_by_role("button", name="Options").click()
    # What is folded away is only made when it is opened.
    shown.page.locator("#ew-rerank label").last.wait_for()
    assert shown.page.locator("#ew-rerank label").all_inner_texts() == [
        "Probability",
        "Agreement among the captions",
        "CLAP (tiny-link)",
        "CLAP (other)",
    ]
    shown.page.get_by_label("CLAP (other)").check()
    shown.page.get_by_role("button", name="A siren").click()
    shown.page.wait_for_selector(".ew-card")
    cosines = shown.page.locator(".ew-two .ew-second")
    assert cosines.count() == 5
    assert all(re.fullmatch(r"-?\d\.\d\d|-", text) for text in cosines.all_inner_texts())
    assert "Chosen by CLAP (other)" in shown.page.inner_text(".ew-card")
    assert shown.complaints == []
    shown.page.close()


def test_text_file_gets_a_sentence(page: Page, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("this is not a sound")
    page.drop(notes)
    problem = page.page.wait_for_selector(".ew-problem")
    assert "'notes.txt' is not a sound in a known format" in problem.inner_text()
    assert problem.get_attribute("role") == "alert"
    assert page.complaints == []


def test_button_without_a_sound_says_so(page: Page) -> None:
    page.page.get_by_role("button", name="Describe the sound").click()
    assert "no sound yet" in page.page.wait_for_selector(".ew-problem").inner_text()


def test_recording_is_captioned(page: Page) -> None:
    page.page.get_by_role("button", name="Record", exact=True).click()
    page.page.get_by_role("button", name="Stop", exact=True).click(delay=1500)
    page.page.wait_for_selector(".ew-card")
    assert page.complaints == []


def test_every_control_has_a_name_and_is_reached_by_tab(page: Page) -> None:
    page.page.get_by_role("button", name="A siren").click()
    page.page.wait_for_selector(".ew-card")
    nameless = page.page.evaluate(
        """[...document.querySelectorAll('button, a, input, audio, select')].filter(e =>
          e.offsetParent && !(e.innerText || e.ariaLabel || e.title || e.labels?.length
          || e.closest('label'))).map(e => e.outerHTML.slice(0, 200))"""
    )
    assert nameless == []
    page.page.get_by_role("button", name="Describe the sound").focus()
    page.page.keyboard.press("Tab")
    assert page.page.evaluate("document.activeElement.closest('.ew-lane') !== null")


def upload(service: Process) -> dict[str, Any]:
    answer = httpx.post(
        f"{service.url}/demo/gradio_api/upload", files={"files": ("a.wav", wav())}, timeout=TIMEOUT
    )
    return {"path": answer.json()[0], "meta": {"_type": "gradio.FileData"}}


@pytest.mark.parametrize(
    "path",
    [
        "file=https://example.org/a.wav",
        "file=http:/example.org/a.wav",
        "file=/etc/passwd",
        "proxy=https://example.org/a.wav",
        "vibe-code/",
        "file/etc/passwd",
        "run/predict",
        "call/describe",
    ],
)
def test_page_server_fetches_no_url_and_shows_no_other_file(service: Process, path: str) -> None:
    answer = httpx.get(f"{service.url}/demo/gradio_api/{path}", timeout=TIMEOUT)
    assert answer.status_code in (403, 404, 405)
    assert "root:" not in answer.text


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("place", ["http://127.0.0.1:{port}/a.wav", "/etc/hostname"])
def test_page_takes_no_file_that_was_not_uploaded(
    service: Process, place: str, streamed: bool
) -> None:
    import http.server
    import threading

    asked: list[str] = []

    class Trap(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    trap = http.server.HTTPServer(("127.0.0.1", 0), Trap)
    thread = threading.Thread(target=trap.serve_forever)
    thread.start()
    config = httpx.get(f"{service.url}/demo/config", timeout=TIMEOUT).json()
    drop = next(c["id"] for c in config["components"] if c["props"].get("elem_id") == "ew-drop")
    event = next(d for d in config["dependencies"] if d["inputs"] == [drop])
    good = upload(service)
    texts = []
    for value in (
        good,
        {**good, "path": place.format(port=trap.server_port), "is_stream": streamed},
    ):
        body = {"data": [value], "fn_index": event["id"], "session_hash": "abcdefgh12"}
        join = f"{service.url}/demo/gradio_api/queue/join"
        assert httpx.post(join, json=body, timeout=TIMEOUT).status_code == 200
        stream = f"{service.url}/demo/gradio_api/queue/data?session_hash=abcdefgh12"
        texts.append(httpx.get(stream, timeout=TIMEOUT).text)
    trap.shutdown()
    thread.join()
    trap.server_close()
    assert '"success":true' in texts[0]
    assert '"success":false' in texts[1]
    assert asked == []


def test_upload_on_the_page_has_the_limit_of_the_service(service: Process) -> None:
    answer = httpx.post(
        f"{service.url}/demo/gradio_api/upload",
        files={"files": ("a.wav", bytes(6_000_000))},
        timeout=TIMEOUT,
    )
    assert answer.status_code == 413


def test_page_leaves_no_file_outside_its_temporary_folder(service: Process) -> None:
    upload(service)
    outside = [f for f in service.files() if not re.search(r"/tmp/earwitness-serve-\w+/", f)]
    assert outside == []
