"""Writes the tutorial pages while the docs are built: the prose and code of each script, and what
the code printed.

    python docs/tutorial_pages.py        runs the scripts and records what they print

A test runs them too.
"""

import contextlib
import io
import json
import os
import re
import shutil
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted((ROOT / "docs" / "tutorials").glob("*.py"))
RECORD = ROOT / "docs" / "tutorials" / "printed.json"


def cells(script: Path) -> list[tuple[str, bool]]:
    """Pieces of a script in order, and whether each is code; comments from column 0 are prose."""
    source = script.read_text(encoding="utf-8")
    found = re.fullmatch(r'"""(.*?)"""\n(.*)', source, re.S)
    assert found, f"{script}: expected a docstring first"
    pieces = [(found[1].strip(), False)]
    for number, piece in enumerate(re.split(r"((?:^#.*\n)+)", found[2], flags=re.M)):
        prose = number % 2 == 1
        text = re.sub(r"^# ?", "", piece, flags=re.M) if prose else piece
        if text.strip():
            pieces.append((text.strip(), not prose))
    return pieces


def run(script: Path) -> list[str]:
    """What each piece of code of a script prints, in a new folder that holds the examples."""
    names: dict[str, object] = {}
    printed = []
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "examples", Path(folder) / "examples")
        os.chdir(folder)
        try:
            for code in [text for text, is_code in cells(script) if is_code]:
                said = io.StringIO()
                with contextlib.redirect_stdout(said):
                    exec(compile(code, str(script), "exec"), names)
                printed.append(said.getvalue().rstrip())
        finally:
            os.chdir(before)
    return printed


def page(script: Path, printed: list[str]) -> str:
    """The Markdown page of a script with what its code printed."""
    parts, outputs = [], iter(printed)
    for text, is_code in cells(script):
        parts.append(f"```python\n{text}\n```" if is_code else text)
        if is_code and (said := next(outputs)):
            parts.append(f"```text\n{said}\n```")
    link = f"https://github.com/earwitness/earwitness/blob/main/docs/tutorials/{script.name}"
    parts.append(f"The script of this page: [{script.name}]({link}); run it in a clone.")
    return "\n\n".join(parts) + "\n"


def build() -> None:
    """The pages, with the outputs that were recorded."""
    import mkdocs_gen_files

    printed = json.loads(RECORD.read_text(encoding="utf-8"))
    for script in SCRIPTS:
        with mkdocs_gen_files.open(f"tutorials/{script.stem}.md", "w") as file:
            file.write(page(script, printed[script.stem]))


if __name__ == "__main__":
    printed = {script.stem: run(script) for script in SCRIPTS}
    RECORD.write_text(json.dumps(printed, indent=1) + "\n", encoding="utf-8")
elif __name__ == "<run_path>":
    build()
