"""Docs that cannot go stale: Python runs, commands and options exist, links lead somewhere."""

import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from earwitness.cli import app

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def options_of(words):
    """The option names of the (sub)command that `words` begin with, or None where there is none."""
    command = typer.main.get_command(app)
    context = typer.Context(command)
    for word in words:
        if word.startswith("-") or not hasattr(command, "commands"):
            break
        command = command.get_command(context, word)
        if command is None:
            return None
    return {name for p in command.params for name in (*p.opts, *p.secondary_opts)} | {
        "--help",
        "-h",
    }


def commands(text):
    """Lines of code that call earwitness, continuation lines joined."""
    text = text.replace("\\\n", " ")
    fenced = "\n".join(re.findall(r"```(?:bash|sh|console)?\n(.*?)```", text, re.S))
    indented = "\n".join(re.findall(r"^ {4,}(.*)$", text, re.M))
    for line in (fenced + "\n" + indented).splitlines():
        found = re.search(r"(?:^|[|&] ?|\$ )earwitness (.*)", line.strip())
        if found:
            yield found.group(1).partition(" #")[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_documented_commands_and_options_exist(page):
    for line in commands(page.read_text(encoding="utf-8")):
        words = line.split()
        known = options_of(words)
        assert known is not None, f"{page.name}: no command '{words[0]}'"
        for option in re.findall(r"(?<![\w-])--?[a-z][\w-]*", line):
            assert option in known, f"{page.name}: 'earwitness {line}' has no option {option}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        # Pages of the last two are made while the docs are built, which checks them.
        if not target.startswith(("http://", "https://", "reference/", "tutorials/")):
            assert (page.parent / target).exists(), f"{page.name}: {target} is not there"


SHELL = [page for page in PAGES if "```bash\n" in page.read_text(encoding="utf-8")]


@pytest.mark.parametrize("page", SHELL, ids=lambda page: page.name)
def test_shell_blocks_run(page, tmp_path):
    """Blocks marked bash run as they are printed, beside the examples; others only show."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    program = f'earwitness() {{ {shlex.quote(sys.executable)} -m earwitness "$@"; }}\n'
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    for block in blocks:
        run = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", program + block],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, f"{page.name}: {block}\n{run.stderr}"
        assert run.stdout.strip(), f"{page.name}: {block}"


def test_start_pages_have_shell_blocks_that_run():
    assert {"install.md", "first_caption.md", "README.md"} <= {page.name for page in SHELL}


def test_supported_pythons_are_those_of_the_package_and_of_ci():
    install = (ROOT / "docs" / "install.md").read_text("utf-8")
    (found,) = re.findall(r"Python (3\.\d+) to 3\.(\d+)", install)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["requires-python"] == f">={found[0]}"
    named = re.findall(r"Python :: 3\.(\d+)", "\n".join(project["classifiers"]))
    assert [named[0], named[-1]] == [found[0].partition(".")[2], found[1]]
    ci = (ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8")
    assert f'python: ["{found[0]}", "3.{found[1]}"]' in ci
    others = [page for page in PAGES if page.name != "install.md"]
    said = [p.name for p in others if re.search(r"Python 3\.\d+ to 3\.", p.read_text("utf-8"))]
    assert said == []


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_python_of_the_first_pages_runs(page, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text("utf-8"), re.S)
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    assert capsys.readouterr().out.strip()


def test_commands_and_python_of_the_live_guide_run(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs" / "live.md").read_text("utf-8")
    lines = "".join(re.findall(r"```bash\n(.*?)```", page, re.S)).splitlines()
    assert len(lines) == 2
    for line in lines:
        result = CliRunner().invoke(app, shlex.split(line)[1:])
        assert result.exit_code == 0, result.output
        assert result.stdout.strip()
    code = re.findall(r"```python\n(.*?)```", page, re.S)[0]
    exec(compile(code, "docs/live.md", "exec"), {})
    assert "caption" in capsys.readouterr().out


def test_readme_numbers_are_those_that_the_benchmarks_wrote():
    readme = runpy.run_path(str(ROOT / "docs" / "readme.py"))
    text = (ROOT / "README.md").read_text("utf-8")
    assert readme["filled"](text) == text
    value = readme["figures"]("dev")["models"]["pocket-link+events"]["cider_d"][0]
    assert f"| {value:.3f} [" in text
    assert readme["filled"](text.replace(f"{value:.3f} [", "0.999 [")) == text


def test_built_docs_frame_the_browser_page_or_say_how_to_make_it(tmp_path, monkeypatch):
    hook = runpy.run_path(str(ROOT / "docs" / "try_it.py"))["on_post_build"]
    config = SimpleNamespace(site_dir=str(tmp_path / "site"))
    monkeypatch.setitem(hook.__globals__, "PAGE", tmp_path / "none")
    hook(config)
    framed = tmp_path / "site" / "try" / "index.html"
    assert "earwitness page" in framed.read_text("utf-8")
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "index.html").write_text("the page")
    monkeypatch.setitem(hook.__globals__, "PAGE", tmp_path / "page")
    hook(config)
    assert framed.read_text("utf-8") == "the page"
    assert 'src="../try/index.html"' in (ROOT / "docs" / "browser.md").read_text("utf-8")


def test_changelog_has_an_unreleased_section():
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text("utf-8")
