"""The Dockerfiles read as a builder reads them: what they copy, install, run as, start and ask."""

import ast
import json
import re
import shlex
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

import pytest
import typer
from builders import tiny_captioner
from fastapi.routing import APIRoute
from packaging.requirements import Requirement

from earwitness.cli import app
from earwitness.config import tomllib
from earwitness.serve.app import create_app
from earwitness.serve.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
FILES = ("Dockerfile", "Dockerfile.cuda", "Dockerfile.slim")
BASE_MB = 75 + 33
"""debian:bookworm-slim as it lies on disk, and Debian's python3 with what it depends on"""
SYMBOLS_MB = 28
"""what `strip` takes off PyAV's modules (31 to 6 MB) and that of tokenizers (11 to 8 MB)"""
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))

each = pytest.mark.parametrize("name", FILES)


def instructions(name: str) -> list[tuple[str, str]]:
    """(instruction, arguments) with continuation lines joined and comments left out."""
    lines = (ROOT / name).read_text("utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", "", text)
    return [(w, rest) for w, _, rest in (x.partition(" ") for x in joined.splitlines() if x)]


def arguments(name: str, instruction: str) -> list[str]:
    return [rest for word, rest in instructions(name) if word == instruction]


def copied(name: str) -> list[str]:
    from_here = [rest for rest in arguments(name, "COPY") if not rest.startswith("--from=")]
    return [source for rest in from_here for source in shlex.split(rest)[:-1]]


def ignored(path: str) -> bool:
    """What .dockerignore says of a path at the top: the last pattern that fits decides."""
    verdict = False
    for line in (ROOT / ".dockerignore").read_text("utf-8").split():
        keep = line.startswith("!")
        if fnmatch(path, line.removeprefix("!").removeprefix("**/")):
            verdict = not keep
    return verdict


def pip_lines(name: str) -> list[str]:
    return [rest for rest in arguments(name, "RUN") if rest.startswith("pip install")]


@each
def test_everything_that_is_copied_exists_and_reaches_the_builder(name: str) -> None:
    sources = copied(name)
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), f"{name} copies {source}, which is not there"
        assert not ignored(source), f"{name} copies {source}, which .dockerignore leaves out"


@each
def test_everything_that_the_package_is_built_from_is_copied(name: str) -> None:
    tools = PROJECT["tool"]["hatch"]
    wheel = tools["build"]["targets"]["wheel"]
    needed = ["README.md", "hatch_build.py", "LICENSE", "pyproject.toml", tools["version"]["path"]]
    needed += [*wheel["packages"], *wheel["force-include"]]
    tops = set(copied(name))
    assert [path for path in needed if Path(path).parts[0] not in tops] == []


@each
def test_data_runs_and_git_stay_out_of_the_build(name: str) -> None:
    for path in ("runs", "data", ".git", ".venv", "tests", "docs"):
        assert ignored(path), f"{path} would be sent to the builder of {name}"


@each
def test_what_is_installed_is_pinned_and_known(name: str) -> None:
    pins = (ROOT / "constraints-cpu.txt").read_text("utf-8")
    assert len(re.findall(r"^torch==\d[\d.]*$", pins, re.M)) == 1
    lines = pip_lines(name)
    assert lines
    assert all("-c constraints-cpu.txt" in line for line in lines)
    assert ("torch" in lines[0]) == (name != "Dockerfile.slim")
    extras = re.search(r"\.\[([\w,]+)\]", lines[-1])
    assert extras is not None
    options = PROJECT["project"]["optional-dependencies"]
    wanted = [*PROJECT["project"]["dependencies"], *sum(map(options.get, extras[1].split(",")), [])]
    names = {re.split(r"[<>=;\[]", line)[0].lower() for line in wanted} - {"tomli"}
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in pins.splitlines()}
    assert names - pinned == set()


@each
def test_python_is_the_one_that_the_versions_were_chosen_for(name: str) -> None:
    image = arguments(name, "FROM")[0]
    version = re.fullmatch(r"python:(3\.\d+)-slim-bookworm(?: AS build)?", image)
    assert version is not None
    first = (ROOT / "constraints-cpu.txt").read_text("utf-8").splitlines()[0]
    assert f"Python {version[1]}" in first
    oldest = PROJECT["project"]["requires-python"].removeprefix(">=3.")
    assert int(version[1].removeprefix("3.")) >= int(oldest)


@each
def test_service_runs_as_an_ordinary_user(name: str) -> None:
    words = [word for word, _ in instructions(name)]
    user = arguments(name, "USER")
    assert len(user) == 1
    assert int(user[0]) > 0
    assert any(f"--uid {user[0]}" in rest for rest in arguments(name, "RUN"))
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert "RUN" not in words[words.index("USER") :]
    assert "FROM" not in words[words.index("USER") :]


@each
def test_entry_point_is_a_command_that_takes_its_options(name: str) -> None:
    words = json.loads(arguments(name, "ENTRYPOINT")[0])
    if words[:2] == ["python3", "-m"]:
        words = words[2:]
    program, command, *options = words
    assert program in PROJECT["project"]["scripts"]
    group: Any = typer.main.get_command(app)
    found = group.get_command(typer.Context(group), command)
    context = found.make_context(command, options)
    assert context.params["host"] == "0.0.0.0"
    assert [int(port) for port in arguments(name, "EXPOSE")] == [context.params["port"]]


@each
def test_health_check_asks_a_page_that_exists(name: str) -> None:
    check = arguments(name, "HEALTHCHECK")[0]
    _, _, code = json.loads(check[check.index("CMD") + 4 :])
    url = next(
        node.value
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Constant) and str(node.value).startswith("http")
    )
    address, _, path = str(url).removeprefix("http://").partition("/")
    assert address == f"127.0.0.1:{arguments(name, 'EXPOSE')[0]}"
    made = create_app(tiny_captioner(), Settings(demo=False))
    assert f"/{path}" in [route.path for route in made.routes if isinstance(route, APIRoute)]


def needed(requirements: list[str]) -> Iterator[Distribution]:
    """The installed distributions that `requirements` bring along, themselves included."""
    seen: set[str] = set()
    left = [Requirement(one) for one in requirements]
    while left:
        one = left.pop()
        if one.name.lower() in seen or not (
            one.marker is None or one.marker.evaluate({"extra": ""})
        ):
            continue
        seen.add(one.name.lower())
        found = distribution(one.name)
        yield found
        left += map(Requirement, found.requires or [])


def test_slim_image_takes_less_than_400_mb() -> None:
    """The sum of its layers: base, what pip installs less what is removed, and the package."""
    removed = next(rest for rest in arguments("Dockerfile.slim", "RUN") if "rm -r bin" in rest)
    patterns = re.search(r"rm -r bin (.*?) && find numpy .* -name tests ", removed)
    assert patterns is not None
    wanted = [
        *PROJECT["project"]["dependencies"],
        *PROJECT["project"]["optional-dependencies"]["serve"],
    ]
    size = 0
    for package in needed(wanted):
        for file in package.files or []:
            path, place = str(file), Path(str(package.locate_file(file)))
            parts = path.split("/")
            gone = parts[0] == "numpy" and "tests" in parts
            gone |= path.startswith("..") or path.endswith(".pyc")
            gone |= any(fnmatch(path, f"{one}*") for one in patterns[1].split())
            size += 0 if gone or not place.is_file() else place.stat().st_size
    own = [ROOT / "src" / "earwitness", ROOT / "examples", ROOT / "recipes"]
    size += sum(
        path.stat().st_size
        for folder in own
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    )
    assert 200 < size / 1e6 < 400 - BASE_MB + SYMBOLS_MB
