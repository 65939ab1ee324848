"""What a stranger meets first: welcome, version, doctor, completion, names that work anywhere."""

import json
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from typer.testing import CliRunner

from earwitness import __version__, errors
from earwitness.cli import app
from earwitness.config import recipe_file, recipe_names
from earwitness.errors import ConfigError, pip_install
from earwitness.models.names import model_folder, weights_version

# The package's attribute of that name is the command itself.
doctor = import_module("earwitness.cli.doctor")
ROOT = Path(__file__).resolve().parents[2]


def earwitness(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == code, result.output
    return result.output


def test_command_alone_welcomes_with_three_examples_that_exist(monkeypatch):
    monkeypatch.chdir(ROOT)
    text = earwitness()
    examples = re.findall(r"^  earwitness (\w+)", text, re.M)
    assert examples == ["caption", "caption", "serve"]
    assert Path(text.split("earwitness caption ")[1].split()[0]).is_file()
    assert "earwitness doctor" in text
    assert len(text.splitlines()) <= 15


def test_version_names_the_weights_of_each_model():
    assert earwitness("--version").splitlines() == [
        f"earwitness {__version__}",
        f"pocket-lamb {weights_version(model_folder('pocket-lamb'))}",
        f"pocket-link {weights_version(model_folder('pocket-link'))}",
    ]


def test_version_of_weights_changes_with_one_byte(tmp_path):
    for part in ("encoder", "decoder"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "model.safetensors").write_bytes(b"abc")
    before = weights_version(tmp_path)
    (tmp_path / "decoder" / "model.safetensors").write_bytes(b"abd")
    assert re.fullmatch("[0-9a-f]{8}", before)
    assert weights_version(tmp_path) != before


def test_doctor_reports_every_extra_as_json_and_ends_well():
    found = json.loads(earwitness("doctor", "--json"))
    assert {one["state"] for one in found} <= {"ok", "missing", "optional"}
    names = " ".join(one["name"] for one in found)
    assert all(f"[{need.extra}]" in names for need in doctor.NEEDS)
    assert "pocket-lamb" in names
    assert any(one["name"] == "Java" for one in found)


def test_doctor_says_what_a_command_lacks_and_how_to_get_it(monkeypatch):
    needed = ["numpy>=1.26", "fastapi>=999; extra == 'serve'", "no-such-thing; extra == 'demo'"]
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: needed)
    text = earwitness("doctor", "serve", code=1)
    assert "not installed: no-such-thing" in text
    assert "fastapi>=999 instead of " in text
    assert pip_install("demo") in text
    assert "evaluate" not in text
    earwitness("doctor", "caption")
    assert "expected one of caption" in earwitness("doctor", "captoin", code=2)


def test_doctor_fails_where_no_model_loads(monkeypatch):
    # A name that is not in the package.
    monkeypatch.setattr("earwitness.models.names.POCKET_MODELS", ("gone",))
    assert "missing   gone: gone: " in earwitness("doctor", "caption", code=1)


class Distribution:
    """An installed package with the note that pip left beside it."""

    def __init__(self, note: object) -> None:
        self.note = note

    def read_text(self, _: str) -> str | None:
        return None if self.note is None else json.dumps(self.note)


def test_extras_are_installed_from_where_earwitness_came_from(monkeypatch, tmp_path):
    program = os.path.join(os.path.dirname(sys.executable), "pip")
    monkeypatch.setattr(errors.shutil, "which", lambda _: program)
    wheel = tmp_path / "a b" / "earwitness-0.1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    wheel.touch()
    git = {"url": "https://example.org/e.git", "vcs_info": {"vcs": "git"}}
    clone = {"url": tmp_path.as_uri(), "dir_info": {"editable": True}}
    expected = [
        (None, "pip install 'earwitness[serve,demo]'"),
        (clone, f"pip install -e '{tmp_path}[serve,demo]'"),
        ({**clone, "dir_info": {}}, f"pip install '{tmp_path}[serve,demo]'"),
        ({"url": wheel.as_uri(), "archive_info": {}}, f"pip install '{wheel}[serve,demo]'"),
        ({"url": "file:///gone.whl"}, "pip install 'earwitness[serve,demo]'"),
        (git, "pip install 'earwitness[serve,demo] @ git+https://example.org/e.git'"),
    ]
    for note, line in expected:
        monkeypatch.setattr(errors, "distribution", lambda _, note=note: Distribution(note))
        assert pip_install("serve,demo") == line
    monkeypatch.setattr(errors, "distribution", lambda _: Distribution(clone))
    monkeypatch.chdir(tmp_path)
    assert pip_install("train") == "pip install -e '.[train]'"
    monkeypatch.setattr(errors.shutil, "which", lambda _: "/elsewhere/pip")
    assert pip_install("train") == f"{sys.executable} -m pip install -e '.[train]'"


def test_no_error_names_an_extra_by_hand():
    for path in (ROOT / "src").rglob("*.py"):
        written = re.findall(r"pip install '?(?:earwitness|\.)\[", path.read_text("utf-8"))
        assert written == [], path


def test_recipes_are_found_by_name_from_anywhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert recipe_file("tiny") == ROOT / "recipes" / "tiny.toml"
    assert recipe_file("recipes/tiny.toml") == ROOT / "recipes" / "tiny.toml"
    assert recipe_file("paper/lamb") == ROOT / "recipes" / "paper" / "lamb.toml"
    (tmp_path / "tiny.toml").write_text("")
    assert recipe_file("tiny.toml") == Path("tiny.toml")
    assert "paper/lamb" in recipe_names()
    with pytest.raises(ConfigError, match="tinny: no such recipe; .* did you mean 'tiny'"):
        recipe_file("tinny")


def test_card_of_a_model_is_printed_by_its_name():
    assert "# pocket-lamb" in earwitness("models", "card", "pocket-lamb").splitlines()


def test_shell_completes_commands_models_and_recipes():
    def completed(line: str) -> list[str]:
        variables = {"_EARWITNESS_COMPLETE": "complete_bash", "COMP_WORDS": line}
        variables["COMP_CWORD"] = str(len(line.split(" ")) - 1)
        run = subprocess.run(
            [sys.executable, "-c", "from earwitness.cli import app; app(prog_name='earwitness')"],
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
        )
        return run.stdout.split()

    assert completed("earwitness capt") == ["caption"]
    assert completed("earwitness models card ") == ["pocket-lamb", "pocket-link"]
    assert completed("earwitness train tin") == ["tiny"]
