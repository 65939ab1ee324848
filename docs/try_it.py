"""Puts the page that captions in the browser beside the built docs; `browser.md` frames it."""

import shutil
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig

PAGE = Path(__file__).resolve().parent.parent / "build" / "page"
INSTEAD = """<!doctype html><meta charset="utf-8"><meta name="color-scheme" content="light dark">
<title>Not in this build</title><body style="font: 1rem system-ui; padding: 2rem">
<p>The page that captions in the browser is not part of this copy of the documentation.
<p>Make it with <code>earwitness page site/</code> and serve the folder.
"""


def on_post_build(config: MkDocsConfig) -> None:
    """Copies the page that `make browser` made; without one, a sentence on how to make it."""
    place = Path(config.site_dir) / "try"
    if (PAGE / "index.html").is_file():
        shutil.copytree(PAGE, place, dirs_exist_ok=True)
        return
    place.mkdir(parents=True, exist_ok=True)
    (place / "index.html").write_text(INSTEAD, encoding="utf-8")
