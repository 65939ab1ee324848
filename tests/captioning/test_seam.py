"""Above the seam nothing imports torch, wherever the import stands, and captioners satisfy it."""

import ast
from importlib.util import find_spec
from pathlib import Path

import pytest
from builders import tiny_captioner

from earwitness import Captioner
from earwitness.captioning.captioner import Explains

SOURCE = Path(__file__).resolve().parents[2] / "src"
LOADER = "earwitness.captioning.captioner"
ABOVE = ("captioning", "serve", "cli/caption.py", "cli/caption_job.py", "cli/caption_progress.py")


def file_of(module: str) -> Path | None:
    path = SOURCE.joinpath(*module.split("."))
    if (path / "__init__.py").is_file():
        return path / "__init__.py"
    return path.with_suffix(".py") if path.with_suffix(".py").is_file() else None


def imports(module: str) -> set[str]:
    """Every module that `module` imports, inside functions too; not those for types alone."""
    path = file_of(module)
    assert path is not None
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in set(ast.walk(tree)) - typing_only:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {node.module} | {name for name in inside if file_of(name)}
    packages = {name.rpartition(".")[0] for name in found if file_of(name)}
    # These two gather names and commands of all rooms, each of which loads what it needs itself.
    return found | (packages - {"", "earwitness", "earwitness.cli"}) - {"earwitness.cli"}


def way_to(module: str, target: str) -> list[str] | None:
    """A chain of imports from `module` to the package `target` that does not pass the loader."""
    ways = [[module]]
    seen = {module}
    while ways:
        way = ways.pop(0)
        for name in sorted(imports(way[-1])):
            if name.partition(".")[0] == target:
                return [*way, name]
            if name not in seen and name != LOADER and file_of(name):
                seen.add(name)
                ways.append([*way, name])
    return None


def modules() -> list[str]:
    found = []
    for place in ABOVE:
        path = SOURCE / "earwitness" / place
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        found += [".".join(f.relative_to(SOURCE).with_suffix("").parts) for f in files]
    return [name.removesuffix(".__init__") for name in found if name != LOADER]


@pytest.mark.parametrize("module", modules())
@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_no_way_leads_from_above_the_seam_to_torch(module: str, package: str) -> None:
    way = way_to(module, package)
    assert way is None, " -> ".join(way or [])


def test_way_is_found_where_there_is_one() -> None:
    assert find_spec("torch") is not None
    assert way_to("earwitness.system.inference", "torch") is not None
    assert way_to("earwitness.cli.gap", "torch") is not None


def test_torch_captioner_satisfies_the_protocols_without_knowing_them() -> None:
    captioner = tiny_captioner()
    assert isinstance(captioner, Captioner)
    assert isinstance(captioner, Explains)
    for module in ("captioner", "inference"):
        assert LOADER not in imports(f"earwitness.system.{module}")
