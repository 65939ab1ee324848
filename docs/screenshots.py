"""Takes the pictures of the web page that docs/demo.md shows.

    python docs/screenshots.py [--model FOLDER]

Needs chromium and the packages of the extras `demo` and `dev`. Starts the service itself; the
sounds are those of examples/, and a minute joined from them.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
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


def shoot(
    browser: Any, url: str, name: str, sound: Path, viewport: dict[str, int], dark: bool
) -> None:
    """The whole page with the result for `sound`, as a PNG."""
    page = browser.new_page(viewport=viewport, color_scheme="dark" if dark else "light")
    page.set_default_timeout(240_000)
    page.goto(f"{url}/demo/")
    page.wait_for_selector("#ew-go")
    page.set_input_files("#ew-drop input[type=file]", str(sound))
    page.wait_for_selector(".ew-card, .ew-problem")
    page.wait_for_function("document.querySelector('audio')?.readyState >= 1")
    page.mouse.move(0, 0)
    # Gradio fades its blocks in.
    page.wait_for_timeout(1500)
    page.screenshot(path=IMAGES / f"{name}.png", full_page=True)
    print(IMAGES / f"{name}.png")
    page.close()


def main() -> None:
    """Every picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="pocket-lamb")
    args = parser.parse_args()
    IMAGES.mkdir(exist_ok=True)
    argv = [sys.executable, "-m", "earwitness", "serve", "--port", "0", "--model", args.model]
    served = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    assert served.stderr is not None
    found = re.search(r"http://\S+", served.stderr.readline())
    if found is None:
        raise SystemExit(served.stderr.read())
    url = found.group()
    while httpx.get(f"{url}/ready", timeout=60).status_code != 200:
        time.sleep(0.2)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        short, long = EXAMPLES / "siren.flac", minute(Path(folder))
        shoot(browser, url, "demo", short, DESKTOP, dark=False)
        shoot(browser, url, "demo-long", long, DESKTOP, dark=False)
        shoot(browser, url, "demo-dark", long, DESKTOP, dark=True)
        shoot(browser, url, "demo-phone", short, PHONE, dark=False)
        browser.close()
    served.terminate()
    served.communicate()


if __name__ == "__main__":
    main()
