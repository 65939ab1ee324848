"""Takes the pictures of the web page and of a report that the docs show.

    python docs/screenshots.py [--only demo|report]

Needs chromium and the packages of the extras `demo`, `eval` and `dev`. Starts the services itself;
the sounds are those of examples/, and a minute joined from them.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import soundfile
from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).parent / "images"
EXAMPLES = Path(__file__).parent.parent / "examples"
DESKTOP = {"width": 1160, "height": 800}
PHONE = {"width": 390, "height": 844}


def minute(folder: Path) -> Path:
    """A sound of several scenes with a pause between, as one file."""
    parts: list[np.ndarray] = []
    rate = 16000
    for name in ("storm", "siren", "clock", "alarm"):
        samples, rate = soundfile.read(EXAMPLES / f"{name}.flac")
        parts += [samples, np.zeros(5 * rate)]
    path = folder / "an_evening_in_town.flac"
    soundfile.write(path, np.concatenate(parts), rate)
    return path


@contextmanager
def serving(model: str) -> Iterator[str]:
    """The address of a service of its own, while it runs."""
    argv = [sys.executable, "-m", "earwitness", "serve", "--port", "0", "--model", model]
    served = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    try:
        assert served.stderr is not None
        found = re.search(r"http://\S+", served.stderr.readline())
        if found is None:
            raise SystemExit(served.stderr.read())
        while httpx.get(f"{found.group()}/ready", timeout=900).status_code != 200:
            time.sleep(0.2)
        yield found.group()
    finally:
        served.terminate()
        served.communicate()


@contextmanager
def opened(browser: Any, url: str, viewport: dict[str, int], dark: bool = False) -> Iterator[Any]:
    """A page in the browser."""
    page = browser.new_page(viewport=viewport, color_scheme="dark" if dark else "light")
    page.set_default_timeout(600_000)
    page.goto(url)
    yield page
    page.close()


def save(target: Any, name: str, **options: Any) -> None:
    """The page, or one element of it, as a PNG."""
    target.screenshot(path=IMAGES / f"{name}.png", **options)
    print(IMAGES / f"{name}.png", flush=True)


def caption(page: Any, sound: Path) -> None:
    """Gives the sound to the page and waits for the result."""
    page.wait_for_selector("#ew-go")
    page.set_input_files("#ew-drop input[type=file]", str(sound))
    page.wait_for_selector(".ew-card, .ew-problem")
    page.wait_for_function("document.querySelector('audio')?.readyState >= 1")
    page.mouse.move(0, 0)
    # Gradio fades its blocks in.
    page.wait_for_timeout(1500)


def top_of_result(page: Any) -> dict[str, float]:
    """The part of the page from the headline to the player, inside the card's edge."""
    card, stage = (page.locator(name).bounding_box() for name in (".ew-card", ".ew-stage"))
    x, y = card["x"] + 8, card["y"] + 8
    height = stage["y"] + stage["height"] + 8 - y
    return {"x": x, "y": y, "width": card["width"] - 16, "height": height}


def shoot_demo(browser: Any, folder: Path) -> None:
    """The web page with a short sound and a minute, in light and dark, and on a phone."""
    short, long = EXAMPLES / "siren.flac", minute(folder)
    with serving("pocket-lamb") as url:
        for name, sound, viewport, dark in (
            ("demo", short, DESKTOP, False),
            ("demo-long", long, DESKTOP, False),
            ("demo-dark", long, DESKTOP, True),
            ("demo-phone", short, PHONE, False),
        ):
            with opened(browser, f"{url}/demo/", viewport, dark) as page:
                caption(page, sound)
                save(page, name, full_page=True)
                if sound == long:
                    top = f"timeline{'-dark' if dark else ''}"
                    save(page, top, full_page=True, clip=top_of_result(page))
    with serving("pocket-link") as url, opened(browser, f"{url}/demo/", DESKTOP) as page:
        caption(page, short)
        save(page.locator(".ew-bridge"), "demo-bridge")


def shoot_report(browser: Any, folder: Path) -> None:
    """The page of an evaluation that compares both pocket models on the examples."""
    references = {
        "storm": "heavy rain falls and thunder rumbles",
        "siren": "an emergency siren is sounding",
        "clock": "a clock is ticking",
        "alarm": "an alarm beeps again and again",
    }
    rows = [f"{name}.flac,{text}" for name, text in references.items()]
    (folder / "references.csv").write_text("\n".join(["file,caption", *rows]), encoding="utf-8")
    models = ("pocket-lamb", "pocket-link")
    commands = [
        *(["caption", str(EXAMPLES), "-o", f"{one}.csv", "--model", one, "-q"] for one in models),
        [
            *("evaluate", "pocket-lamb.csv", "references.csv", "--against", "pocket-link.csv"),
            *("--metrics", "cider_d,rouge_l", "--html", "report.html", "--audio", str(EXAMPLES)),
        ],
    ]
    for words in commands:
        argv = [sys.executable, "-m", "earwitness", *words]
        subprocess.run(argv, check=True, cwd=folder, stdout=subprocess.DEVNULL)
    for name, viewport, dark in (
        ("report", DESKTOP, False),
        ("report-dark", DESKTOP, True),
        ("report-phone", PHONE, False),
    ):
        with opened(browser, (folder / "report.html").as_uri(), viewport, dark) as page:
            save(page, name, clip={"x": 0, "y": 0, **viewport})


def main() -> None:
    """Every picture, or those of one part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PARTS, help="the pictures of one part")
    args = parser.parse_args()
    IMAGES.mkdir(exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, part in PARTS.items():
            if args.only in (None, name):
                part(browser, Path(folder))
        browser.close()


PARTS = {"demo": shoot_demo, "report": shoot_report}

if __name__ == "__main__":
    main()
