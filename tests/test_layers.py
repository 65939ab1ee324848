"""Imports point down, importing is cheap, and the public names are the chosen ones."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "earwitness"

# A module (or a room with all that it holds) may import its own layer and those above it in this
# table, nothing further down. On the layer of STRANGERS rooms may not even import each other;
# modules inside one room may. A new room needs a line here. The laboratory may import everything,
# and nothing imports it.
LAYERS: dict[str, int] = {
    "__init__": 0,
    "errors": 0,
    "plugins": 0,
    "config": 1,
    "decoding": 2,
    "io": 1,
    "cauchy_schwarz": 1,
    "statistics": 1,
    "text": 1,
    "templates": 1,
    "audio": 2,
    "gap": 2,
    "evaluation": 2,
    "models": 2,
    "data": 3,
    "caption": 3,
    "encoders": 4,
    "lamb": 4,
    "link": 4,
    "runtime": 4,
    "export": 6,
    "system": 5,
    "adapters": 5,
    "captioning": 6,
    "training": 6,
    "live": 6,
    "serve": 6,
    "browser": 6,
    "cli": 7,
    "__main__": 7,
}
STRANGERS = 4

PUBLIC_NAMES = [
    "AudioError",
    "Caption",
    "Captioner",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "EarwitnessError",
    "__version__",
    "evaluate",
]

HEAVY = ("torch", "transformers", "peft", "matplotlib", "pandas", "scipy", "fastapi", "gradio")

MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
MODULES.remove(Path("__init__.py"))  # gathers names of every layer; test_import_is_cheap holds it


def line_of(module: Path) -> str:
    """The line of the table for a file below src/earwitness."""
    return module.with_suffix("").parts[0]


def target_of(path: str) -> str | None:
    """The line of the table for a dotted path; None outside earwitness, __init__ for its names."""
    root, *below = path.split(".")
    if root == "earwitness_lab":
        return root
    if root != "earwitness":
        return None
    return below[0] if below else "__init__"


def imported(module: Path, source: str) -> list[tuple[int, str]]:
    """(line number, line of the table) of each earwitness import in `source`, wherever it is."""
    package = ("earwitness", *module.parent.parts)
    found: list[tuple[int, str | None]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, target_of(alias.name)) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*start, *([node.module] if node.module else [])))
            if base == "earwitness":
                names = [alias.name for alias in node.names]
                found += [(node.lineno, n if is_module(n) else "__init__") for n in names]
            else:
                found.append((node.lineno, target_of(base)))
    return sorted((line, target) for line, target in found if target is not None)


def is_module(name: str) -> bool:
    return name in LAYERS or (PACKAGE / f"{name}.py").is_file() or (PACKAGE / name).is_dir()


def violations(module: Path, source: str) -> list[str]:
    """One sentence per import of `module` that the table forbids."""
    importer = line_of(module)
    complaints = []
    for line, target in imported(module, source):
        if target == importer:
            continue
        if target not in LAYERS:
            complaints.append(f"{module}:{line}: earwitness.{target} has no layer in LAYERS")
        elif LAYERS[target] > LAYERS[importer]:
            complaints.append(
                f"{module}:{line}: {importer} (layer {LAYERS[importer]}) imports {target} "
                f"(layer {LAYERS[target]}); imports point down"
            )
        elif LAYERS[target] == LAYERS[importer] == STRANGERS:
            complaints.append(f"{module}:{line}: {importer} imports its sibling {target}")
    return complaints


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_module_has_a_layer_and_imports_only_down(module: Path) -> None:
    name = line_of(module)
    assert name in LAYERS, f"earwitness.{name} has no layer: add a line to LAYERS in this file"
    assert violations(module, (PACKAGE / module).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("config.py", "from earwitness.audio import load"),
        ("errors.py", "import earwitness.cli.caption"),
        ("audio/loading.py", "from earwitness import system"),
        ("audio/loading.py", "def f():\n    from earwitness.training import fit"),
        (
            "audio/loading.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import earwitness.serve",
        ),
        ("encoders/clap.py", "from ..lamb.aligner import loss"),
        ("link/base.py", "from earwitness.encoders.base import Encoder"),
        ("data/captions.py", "from .. import system"),
        ("lamb/two_stream.py", "from earwitness import link"),
        ("cli/caption.py", "from earwitness.nowhere.at_all import x"),
        ("training/sources.py", "from earwitness_lab.pocket.scene_pool import Scenes"),
    ],
)
def test_forbidden_import_is_found(module: str, source: str) -> None:
    assert len(violations(Path(module), source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("encoders/clap.py", "from earwitness.encoders.base import Encoder"),
        ("encoders/clap.py", "from .base import Encoder\nfrom ..audio import load"),
        ("models/weights.py", "from earwitness import __version__"),
        ("system/captioner.py", "from earwitness import lamb, link"),
        ("audio/loading.py", "import numpy as np\nfrom earwitness.audio.decoding import Sound"),
    ],
)
def test_permitted_import_passes(module: str, source: str) -> None:
    assert violations(Path(module), source) == []


@pytest.mark.parametrize("statement", ["import earwitness", "import earwitness.cli"])
def test_import_is_cheap(statement: str) -> None:
    code = f"import sys; {statement}; print([m for m in {HEAVY} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_public_names_are_the_chosen_ones() -> None:
    assert sorted(import_module("earwitness").__all__) == PUBLIC_NAMES


def test_type_checkers_are_told_where_public_names_live() -> None:
    names = import_module("earwitness")._HOMES
    source = (PACKAGE / "__init__.py").read_text(encoding="utf-8")
    told = {
        alias.name: node.module
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("earwitness")
        for alias in node.names
    }
    assert told == names
    assert (PACKAGE / "py.typed").is_file()


@pytest.mark.parametrize("name", PUBLIC_NAMES)
def test_public_name_resolves(name: str) -> None:
    assert getattr(import_module("earwitness"), name) is not None


def test_root_holds_few_modules() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 9
