"""The source archive builds a wheel, and the wheel alone captions in an environment of its own."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LARGEST = 100_000_000
"""bytes that the package index takes"""

pytest.importorskip("hatchling", reason="building needs hatchling")


def build(kind: str, source: Path, out: Path) -> Path:
    """The archive of `kind` (sdist or wheel) of the project at `source`."""
    code = f"from hatchling.build import build_{kind} as b; print(b({str(out)!r}))"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=True
    )
    return out / run.stdout.split()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the unpacked source archive, not from the checkout."""
    folder = tmp_path_factory.mktemp("dist")
    archive = build("sdist", ROOT, folder)
    assert archive.stat().st_size < LARGEST
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return build("wheel", folder / archive.name.removesuffix(".tar.gz"), folder)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a new environment with the wheel, and of this one's libraries."""
    home = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    programs = home / ("Scripts" if os.name == "nt" else "bin")
    pip = [sys.executable, "-m", "pip", "--python", str(next(programs.glob("python*")))]
    options = ["--no-deps", "--no-index", "--no-compile", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", *options, str(wheel)], check=True, capture_output=True)
    (site,) = home.rglob("site-packages")
    # A plain entry of the path: its own .pth files, of editable installs too, are not read.
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    return programs


def run(installed: Path, *words: str, code: int = 0) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    found = subprocess.run(
        [installed / words[0], *words[1:]],
        cwd=installed,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert found.returncode == code, found.stdout + found.stderr
    return found.stdout


def test_wheel_holds_what_the_program_reads_and_nothing_of_the_checkout(wheel: Path) -> None:
    assert wheel.stat().st_size < LARGEST
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {
        "earwitness",
        "earwitness_lab",
        "earwitness-0.1.0.dist-info",
    }
    metadata = zipfile.ZipFile(wheel).read("earwitness-0.1.0.dist-info/METADATA").decode()
    assert "Description-Content-Type: text/markdown" in metadata
    targets = re.findall(r'\]\((.*?)\)|(?:src|srcset)="(.*?)"', metadata)
    assert len(targets) > 20
    assert all("".join(one).startswith("https://") for one in targets)
    for place in ("src/earwitness", "src/earwitness_lab", "examples", "recipes"):
        shipped = place.removeprefix("src/")
        shipped = f"earwitness/{shipped}" if shipped == place else shipped
        files = [
            path.relative_to(ROOT / place).as_posix()
            for path in (ROOT / place).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        ]
        assert {f"{shipped}/{file}" for file in files} <= {*names}


def test_wheel_alone_captions(installed: Path) -> None:
    code = (
        "import earwitness, importlib.metadata as m; "
        "print(earwitness.__file__, m.files('earwitness')[0].locate())"
    )
    places = run(installed, "python", "-c", code).split()
    assert all(Path(place).is_relative_to(installed.parent) for place in places)
    welcome = run(installed, "earwitness")
    sound = welcome.split("earwitness caption ")[1].split("\n")[0].strip("'")
    assert Path(sound).is_relative_to(installed.parent)
    assert "siren" in run(installed, "earwitness", "caption", sound)


def test_wheel_knows_its_recipes_models_and_commands(installed: Path) -> None:
    assert "# pocket-link" in run(installed, "earwitness", "models", "card", "pocket-link")
    found = json.loads(run(installed, "earwitness", "doctor", "caption", "--json"))
    assert {one["state"] for one in found} <= {"ok", "optional"}
    code = "from earwitness.config import recipe_file; print(recipe_file('tiny'))"
    recipe = run(installed, "python", "-c", code).strip()
    assert Path(recipe).is_relative_to(installed.parent)
    assert "reproduce" in run(installed, "earwitness", "--help")
