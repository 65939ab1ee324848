"""The tutorials run as they are printed, and end where they say."""

import json
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TUTORIALS = runpy.run_path(str(ROOT / "docs" / "tutorial_pages.py"), run_name="tutorial_pages")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("captions", "00:00:01,000 --> 00:00:03,500\nClose the window, will you?"),
        ("evaluation", "p = "),
        pytest.param("finetuning", "the clock is running", marks=pytest.mark.slow),
    ],
)
def test_tutorial_runs_to_its_end(name, found):
    script = ROOT / "docs" / "tutorials" / f"{name}.py"
    printed = TUTORIALS["run"](script)
    assert found in printed[-1]
    page = TUTORIALS["page"](script, printed)
    assert page.startswith("# ")
    assert page.count("```") % 2 == 0
    assert printed[-1] in page


def test_every_tutorial_has_its_record_and_its_page():
    names = {script.stem for script in TUTORIALS["SCRIPTS"]}
    record = json.loads(TUTORIALS["RECORD"].read_text(encoding="utf-8"))
    assert set(record) == names
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert all(f"tutorials/{name}.md" in nav for name in names)
