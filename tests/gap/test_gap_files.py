"""Embedding and caption files, and the command that reads them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from safetensors.numpy import save_file
from typer.testing import CliRunner

from earwitness.cli.gap import gap as gap_command
from earwitness.errors import DataError, EarwitnessError
from earwitness.gap import load_captions, load_vectors


def vectors(n: int = 40, width: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, width)).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with audio, text and bridged vectors and their captions."""
    monkeypatch.chdir(tmp_path)
    text = vectors()
    np.save("t.npy", text)
    np.save("a.npy", text + vectors(seed=1) + 1.0)
    np.save("b.npy", text + 0.5 * vectors(seed=1))
    lines = ["caption,owner", *(f'"a dog, take {i}",{i}' for i in range(40))]
    Path("c.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def run(arguments: str) -> tuple[int, str, BaseException | None]:
    app = typer.Typer()
    app.command()(gap_command)
    result = CliRunner().invoke(app, arguments.split())
    return result.exit_code, result.output, result.exception


def test_every_format_gives_the_same_array(tmp_path: Path) -> None:
    x = vectors()
    np.save(tmp_path / "x.npy", x)
    save_file({"x": x}, tmp_path / "x.safetensors")
    pd.DataFrame({"id": range(40), "vector": list(x)}).to_parquet(tmp_path / "x.parquet")
    pd.DataFrame(x, columns=[f"c{i}" for i in range(8)]).to_parquet(tmp_path / "wide.parquet")
    for name in ("x.npy", "x.safetensors", "x.parquet", "wide.parquet"):
        np.testing.assert_array_equal(load_vectors(tmp_path / name), x)


def test_name_after_hash_picks_a_tensor(tmp_path: Path) -> None:
    save_file({"audio": vectors(), "text": vectors(seed=1)}, tmp_path / "two.safetensors")
    found = load_vectors(f"{tmp_path / 'two.safetensors'}#text")
    np.testing.assert_array_equal(found, vectors(seed=1))
    with pytest.raises(DataError, match="audio, text"):
        load_vectors(tmp_path / "two.safetensors")


def test_pickled_array_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="not a readable"):
        load_vectors(tmp_path / "x.npy")


@pytest.mark.parametrize("name", ["x.npy", "x.safetensors", "x.parquet"])
def test_damaged_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not an array")
    with pytest.raises(DataError, match="not a readable"):
        load_vectors(tmp_path / name)


def test_uneven_rows_are_refused(tmp_path: Path) -> None:
    pd.DataFrame({"v": [[1.0, 2.0], [3.0]]}).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(DataError, match="equal lengths"):
        load_vectors(tmp_path / "x.parquet")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"text\nx\n", "no column 'caption'"),
        (b"caption,owner\nx\n", "line 2"),
        (b"caption,owner\nx,one\n", "counted from 0"),
        (b"caption\n\x00\x01\n", "not text"),
        (b"", "no column 'caption'; expected caption, got none"),
    ],
)
def test_bad_caption_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "c.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_captions(tmp_path / "c.csv")


def test_command_prints_every_quantity_and_writes_every_file(folder: Path) -> None:
    (folder / "sweep.csv").write_text("t_star,steps,value\n0,1,0.4\n100,1,0.6\n")
    (folder / "curve.csv").write_text("step,paired cosine\n0,0.1\n10,0.5\n")
    code, output, error = run(
        "--audio a.npy --text t.npy --bridged b.npy --captions c.csv --sweep sweep.csv "
        "--curve curve.csv --report out.html --figures figures --json out.json --bootstrap 20"
    )
    assert (code, error) == (0, None)
    assert "gram_correlation" in output
    assert "change" in output
    assert len(json.loads((folder / "out.json").read_text())["rows"]) == 54
    assert "a dog, take 3" in (folder / "out.html").read_text()
    names = {path.name for path in (folder / "figures").iterdir()}
    every = ("pca", "histogram", "sweep", "training")
    assert names == {f"{name}.{kind}" for name in every for kind in ("png", "svg")}


def test_command_measures_tokens_without_normalising(folder: Path) -> None:
    code, output, _ = run("--tokens --audio a.npy --text t.npy --bridged b.npy --bootstrap 20")
    assert code == 0
    assert "token_l2" in output
    assert "rmg" not in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--audio a.npy --text none.npy", "none.npy: no such file"),
        ("--audio a.npy --text c.csv", "expected embeddings as .npy, .safetensors, .parquet"),
        ("--audio a.npy --text t.npy --projection tsne", "expected pca, umap"),
        ("--audio a.npy --text t.npy --report none/out.html", "existing folder"),
        ("--audio a.npy --text t.npy --shown 0", "1 or more"),
        ("--audio a.npy --text t.npy --bootstrap 0", "2 to 100000"),
        ("--tokens --audio a.npy --text t.npy --captions c.csv", "omit the column owner"),
        ("model --pairs c.csv", "no such model folder"),
    ],
)
def test_command_refuses_with_one_sentence(folder: Path, arguments: str, message: str) -> None:
    code, _, error = run(arguments)
    assert code == 1
    assert isinstance(error, EarwitnessError)
    assert message in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    "arguments", ["", "--audio a.npy", "model", "model --pairs c.csv --audio a"]
)
def test_command_without_input_is_a_usage_error(folder: Path, arguments: str) -> None:
    assert run(arguments)[0] == 2
