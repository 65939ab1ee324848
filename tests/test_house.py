"""The rules that keep the code readable: sizes, shapes, one home for each idea, plain words."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(
    path
    for package in ("earwitness", "earwitness_lab")
    for path in (ROOT / "src" / package).rglob("*.py")
)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

LONGEST_FUNCTION = 60
LONGEST_FILE = 400
DEEPEST_NESTING = 4

HOMES = {
    "cs_divergence": "earwitness/lamb/aligner.py",
    "squared_width": "earwitness/cauchy_schwarz.py",
    "info_nce": "earwitness/lamb/aligner.py",
    "CrossModalAligner": "earwitness/lamb/aligner.py",
    "TwoStreamAdapter": "earwitness/lamb/two_stream.py",
    "TokenGuide": "earwitness/lamb/token_guide.py",
    "DiffusionLink": "earwitness/link/bridge.py",
    "start_time_sweep": "earwitness/link/bridge.py",
    "topology_loss": "earwitness/link/topology.py",
    "add_noise": "earwitness/link/diffusion.py",
    "ddim": "earwitness/link/diffusion.py",
}
"""a paper's term -> the one file that defines it"""

WORDS = {
    r"\baccepted (is|are)\b": "expected ...",
    r"(?<![Tt]here )\b(is|are) no (id|folder|file|number|name|whole|owner|sound)\b": "is not a ...",
    r"\ba package more\b": "another package",
    r"\bthe limit in force\b": "the limit",
    r"\b(one|a) (row|line|caption|sound|file) a (clip|sound|file|row|item|line)\b": "per",
    r"\b(normal|optim|quant|recogn|summar|token|initial|synthes)is(e|es|ed|er|ing|ation)\b": "-ize",
    r"\b(centre|colour|behaviour|neighbour|grey|learnt|whilst)s?\b": "American spelling",
    r"(?<![\"_])\b(un)?labelled\b": "labeled",
    r"(?<!\")\blicences?\b": "license",
    r"\b(standard|penal|organ|minim|maxim|general|visual|special|real)is(e|es|ed|ing)\b": "-ize",
    r"\brivals?\b": "baseline",
    r"\bin place of searching\b": "instead of",
    r"\bRaises like its parts\b": "name the errors",
    r"\bstands? there twice\b": "is listed twice",
    r"\btells no\b": "does not state",
    r"\bone behind the other\b": "one after another",
    r"\bcancel(s|ed)? (itself|themselves) out\b": "cancel out",
    r"\btime stamps?\b": "timestamp",
    r"\bblack lists?\b": "blacklist",
    r"\bin (disorder|ruins)\b": "malformed, or damaged",
    r"\b(at|to) length one\b": "unit length",
    r"\bdB of full scale\b": "dBFS",
    r"\bhas no ONNX form\b": "cannot be exported",
    r"\bother signs?\b": "character",
    r"\bread all the same\b": "read anyway",
    r"\b(is|are) no news\b": "not worth a note",
    r"\bin the manner of\b": "like",
    r"\b(runs?|run) in a circle\b": "form a cycle",
    r"\bby its ending\b": "by its extension",
    r"\bmake it first\b": "create it first",
    r"\btold apart by their endings\b": "by extension",
}
"""phrase -> what to write instead"""


@functools.cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(text_of(path))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def length_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function; of a command, whose signature and docstring are its help, the rest."""
    signature = ast.unparse(function.args)
    start = function.lineno
    if "typer.Option" in signature or "typer.Argument" in signature or "Form(" in signature:
        start = function.body[1 if ast.get_docstring(function) else 0].lineno
    assert function.end_lineno is not None
    return function.end_lineno - start + 1


BLOCKS = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.AsyncFor, ast.AsyncWith, ast.Match)


def depth_of(node: ast.AST, depth: int = 0) -> int:
    """The deepest nesting of blocks below `node`; an `elif` is as deep as its `if`."""
    deepest = depth
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST):
                continue
            is_elif = isinstance(node, ast.If) and name == "orelse" and isinstance(child, ast.If)
            inner = depth + (isinstance(child, BLOCKS) and not is_elif)
            if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                deepest = max(deepest, depth_of(child, inner))
    return deepest


BARE = re.compile(r"(?<![\w.\[])(np\.ndarray|Tensor|torch\.Tensor)(?![\w,])")
SHAPED = re.compile(r"\b(Float|Int|UInt|Bool|Shaped|Num|Complex|Inexact|Real)\d*\[[^\]]*\]")

STATE = re.compile(r"dict\[str, [^\]]*\]")
"""a module's state or a batch: arrays by name, which have no shape in common"""


def public(tree: ast.Module | ast.ClassDef) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Functions and methods whose names, and whose classes' names, do not begin with _."""
    for node in tree.body:
        if getattr(node, "name", "_").startswith("_"):
            continue
        if isinstance(node, ast.ClassDef):
            yield from public(node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def bare_arrays(path: Path) -> list[str]:
    """Public parameters annotated as arrays or tensors without a shape."""
    found = []
    for function in public(tree_of(path)):
        arguments = function.args
        for arg in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
            written = ast.unparse(arg.annotation) if arg.annotation else ""
            if BARE.search(STATE.sub("", SHAPED.sub("", written))):
                found.append(f"{path.name}:{arg.lineno}: {function.name}({arg.arg}: {written})")
    return found


def test_functions_are_short() -> None:
    long = [
        f"{path.name}:{function.lineno}: {function.name} has {length_of(function)} lines"
        for path in SOURCES
        for function in functions(path)
        if length_of(function) > LONGEST_FUNCTION
    ]
    assert long == []


def test_files_are_small() -> None:
    counts = {path: len(text_of(path).splitlines()) for path in SOURCES}
    assert {str(p.relative_to(ROOT)): n for p, n in counts.items() if n > LONGEST_FILE} == {}


def test_nesting_is_shallow() -> None:
    deep = [
        f"{path.name}:{function.lineno}: {function.name} nests {depth_of(function)} deep"
        for path in SOURCES
        for function in functions(path)
        if depth_of(function) > DEEPEST_NESTING
    ]
    assert deep == []


def test_public_arrays_have_shapes() -> None:
    assert [line for path in SOURCES for line in bare_arrays(path)] == []


def test_a_wrong_shape_fails_in_tests() -> None:
    """The hook of conftest.py is at work."""
    import torch
    from jaxtyping import TypeCheckError

    from earwitness.lamb.aligner import cs_divergence

    with pytest.raises(TypeCheckError):
        cs_divergence(torch.zeros(3, 4), torch.zeros(3, 5), 1.0)


@pytest.mark.parametrize("term", HOMES)
def test_each_term_of_the_papers_is_defined_in_one_file(term: str) -> None:
    kinds = (ast.FunctionDef, ast.ClassDef)
    homes = [
        str(path.relative_to(ROOT / "src"))
        for path in SOURCES
        for node in tree_of(path).body
        if isinstance(node, kinds) and node.name == term
    ]
    assert len(homes) == 1
    assert homes[0] == HOMES[term]


def phrases(text: str) -> list[str]:
    return [
        f"line {text[: found.start()].count(chr(10)) + 1}: {found.group()!r}; write {better!r}"
        for pattern, better in WORDS.items()
        for found in re.finditer(pattern, text)
    ]


@pytest.mark.parametrize("path", [*SOURCES, *PAGES], ids=lambda p: str(p.relative_to(ROOT)))
def test_words_are_plain(path: Path) -> None:
    assert phrases(text_of(path)) == []


def test_a_calque_is_found() -> None:
    assert len(phrases("one row a clip; accepted are 1 to 4; colour")) == 3
