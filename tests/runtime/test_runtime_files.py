"""What the runtime reads of a folder, and what it refuses in one sentence."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from builders import tiny_captioner
from safetensors.torch import load_file, save_file

from earwitness.errors import CheckpointError
from earwitness.export.folder import write_graphs
from earwitness.runtime import RuntimeCaptioner
from earwitness.runtime.weights import WeightFile
from earwitness.runtime.wire import external_weights


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_captioner().save(folder, torch.float16)
    write_graphs(folder)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(made, tmp_path / "tiny"))


def change_settings(folder: Path, **changes: object) -> None:
    path = folder / "runtime.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def sign(folder: Path, name: str, model: bytes) -> None:
    """Writes `model` as graph `name`, and its digest into runtime.json."""
    (folder / f"{name}.onnx").write_bytes(model)
    graphs = json.loads((folder / "runtime.json").read_text())["graphs"]
    change_settings(folder, graphs=graphs | {name: hashlib.sha256(model).hexdigest()})


def test_external_weights_are_those_that_onnx_reads(folder: Path) -> None:
    for name in ("encoder", "prefix", "decoder"):
        path = folder / f"{name}.onnx"
        model = onnx.load(path, load_external_data=False)
        wanted = {}
        for tensor in model.graph.initializer:
            place = {entry.key: entry.value for entry in tensor.external_data}
            if place:
                wanted[tensor.name] = (
                    tuple(tensor.dims),
                    place["location"],
                    int(place["offset"]),
                    int(place["length"]),
                )
        found = external_weights(path.read_bytes())
        assert {w.name: (w.shape, w.location, w.offset, w.size) for w in found} == wanted
        assert len(wanted) > 5
        onnx.checker.check_model(path)


def test_weight_file_reads_what_safetensors_reads(tmp_path: Path) -> None:
    state = {
        "table": torch.randn(5, 3).half(),
        "rounded": torch.randn(4, 2).bfloat16(),
        "number": torch.tensor(3),
    }
    save_file(state, tmp_path / "w.safetensors")
    file = WeightFile(tmp_path / "w.safetensors")
    assert {name: t.shape for name, t in file.tensors.items()} == {
        name: tuple(t.shape) for name, t in state.items()
    }
    ids = np.array([[2, 0], [1, 1]])
    for name in ("table", "rounded"):
        assert np.array_equal(file.rows(name)(ids), state[name].float().numpy()[ids])


def test_weights_are_stored_once(folder: Path) -> None:
    graphs = sum(path.stat().st_size for path in folder.glob("*.onnx"))
    model = onnx.load(folder / "decoder.onnx", load_external_data=False)
    inside = [t for t in model.graph.initializer if not t.external_data]
    assert sum(int(np.prod(t.dims)) for t in inside) < 1000
    assert graphs < 400_000


@pytest.mark.parametrize("name", ["encoder.onnx", "prefix.onnx", "decoder.onnx"])
def test_missing_or_damaged_graph_is_named(folder: Path, name: str) -> None:
    path = folder / name
    whole = path.read_bytes()
    for damage in (whole[:-20], whole[:200] + b"\xff" + whole[201:], b""):
        path.write_bytes(damage)
        with pytest.raises(CheckpointError, match=f"{name}: damaged, or not the file"):
            RuntimeCaptioner.load(folder)
    path.unlink()
    with pytest.raises(CheckpointError, match=name):
        RuntimeCaptioner.load(folder)


@pytest.mark.parametrize("model", [b"", b"not a graph at all", b"\x3a\xff\xff\xff\x7f"])
def test_foreign_bytes_are_no_graph(folder: Path, model: bytes) -> None:
    sign(folder, "prefix", model)
    with pytest.raises(CheckpointError, match=r"prefix.onnx: damaged, or not an ONNX file"):
        RuntimeCaptioner.load(folder)


def test_foreign_graph_is_refused(folder: Path) -> None:
    sign(folder, "prefix", (folder / "encoder.onnx").read_bytes())
    with pytest.raises(CheckpointError, match=r"prefix.onnx: takes 'waveform'.*expected 'h'"):
        RuntimeCaptioner.load(folder)


@pytest.mark.parametrize("location", ["/etc/passwd", "../secret.safetensors", "other.safetensors"])
def test_weights_outside_of_the_folder_are_refused(folder: Path, location: str) -> None:
    (folder.parent / "secret.safetensors").write_bytes((folder / "prefix.safetensors").read_bytes())
    model = onnx.load(folder / "prefix.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location" and entry.value == "prefix.safetensors":
                entry.value = location
    sign(folder, "prefix", model.SerializeToString())
    with pytest.raises(CheckpointError, match=f"takes weights from '{location}'"):
        RuntimeCaptioner.load(folder)


def test_other_tokenizer_is_refused(folder: Path) -> None:
    path = folder / "decoder" / "tokenizer.json"
    path.write_text(path.read_text().replace('"a"', '"b"'))
    with pytest.raises(CheckpointError, match=r"tokenizer.json: damaged, or not the file"):
        RuntimeCaptioner.load(folder)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer.json"):
        RuntimeCaptioner.load(folder)


@pytest.mark.parametrize("name", ["encoder/model", "decoder/model", "prefix"])
def test_missing_or_damaged_weights_are_named(folder: Path, name: str) -> None:
    path = folder / f"{name}.safetensors"
    whole = path.read_bytes()
    for damage in (whole[:100], b"", b"\xff" * 64, whole[:-100]):
        path.write_bytes(damage)
        with pytest.raises(CheckpointError, match=f"{path.name}: (damaged|not readable)"):
            RuntimeCaptioner.load(folder)
    path.unlink()
    with pytest.raises(CheckpointError, match=f"{name}.safetensors: no such file"):
        RuntimeCaptioner.load(folder)


def test_weights_of_other_sizes_or_not_finite_are_named(folder: Path) -> None:
    path = folder / "prefix.safetensors"
    state = load_file(path)
    state["prefix.project.bias"][0] = torch.nan
    save_file(state, path)
    with pytest.raises(CheckpointError, match=r"'prefix.project.bias' holds numbers that are not"):
        RuntimeCaptioner.load(folder)
    state["prefix.project.bias"] = torch.zeros(3, dtype=torch.float16)
    save_file(state, path)
    with pytest.raises(CheckpointError, match="export the model again"):
        RuntimeCaptioner.load(folder)


def test_settings_of_another_format_are_refused(folder: Path) -> None:
    change_settings(folder, format=99)
    with pytest.raises(CheckpointError, match=r"runtime.json: format 99"):
        RuntimeCaptioner.load(folder)
    change_settings(folder, format=1, surprise=1)
    with pytest.raises(CheckpointError, match="unknown key 'surprise'"):
        RuntimeCaptioner.load(folder)
    (folder / "runtime.json").unlink()
    with pytest.raises(CheckpointError, match=r"pip install .*\[train\]'"):
        RuntimeCaptioner.load(folder)


def test_trained_weights_are_taken_at_once(folder: Path) -> None:
    """The graphs hold no weights: whoever goes on training the folder need not export again."""
    before = RuntimeCaptioner.load(folder).guide_words(np.ones(16000, np.float32), 3)
    state = load_file(folder / "prefix.safetensors")
    state["guide.beta"] = state["guide.beta"] * 2
    save_file(state, folder / "prefix.safetensors")
    after = RuntimeCaptioner.load(folder).guide_words(np.ones(16000, np.float32), 3)
    assert [word for word, _ in after] == [word for word, _ in before]
    assert [b for _, b in after] == pytest.approx([2 * b for _, b in before], rel=1e-5)
