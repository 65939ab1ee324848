"""Docs that cannot go stale: Python runs, commands and options exist, links lead somewhere."""

import re
import shlex
from pathlib import Path

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
        if not hasattr(command, "commands"):
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
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name}: {target} is not there"


def test_readme_python_runs(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
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


def test_changelog_has_an_unreleased_section():
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text("utf-8")
