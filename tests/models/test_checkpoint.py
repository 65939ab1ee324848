"""Damaged model folders: each is refused in one sentence, and nothing of it is run."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from builders import tiny_model_folder
from safetensors.torch import load_file, save_file

from earwitness.errors import CheckpointError
from earwitness.models.weights import (
    load_weights,
    read_json,
    read_weights,
    write_json,
    write_weights,
)
from earwitness.system.captioner import TorchCaptioner


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return tiny_model_folder(tmp_path_factory.mktemp("good") / "model")


@pytest.fixture
def folder(good, tmp_path):
    return Path(shutil.copytree(good, tmp_path / "model"))


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        TorchCaptioner.load(folder)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


WEIGHTS = ["prefix.safetensors", "encoder/model.safetensors", "decoder/model.safetensors"]
SETTINGS = ["earwitness.json", "encoder/config.json", "decoder/config.json"]


def change_weights(path: Path, change) -> None:
    state = load_file(path)
    first = next(name for name in sorted(state) if state[name].ndim > 1)
    change(state, first)
    save_file(state, path, metadata={"format": "pt"})


def change_json(path: Path, **values) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_the_folder_loads_before_anything_is_done_to_it(folder):
    assert TorchCaptioner.load(folder).name == "tiny"


def test_no_folder_or_a_file_in_its_place_is_refused(tmp_path):
    refused(tmp_path / "none", "none", "no such model folder")
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file", "no such model folder")


@pytest.mark.parametrize("name", [*WEIGHTS, *SETTINGS, "decoder/tokenizer.json"])
def test_a_missing_file_is_refused(folder, name):
    (folder / name).unlink()
    refused(folder, "model")


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_weights_file_is_refused(folder, name, share):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(len(content) * share)])
    refused(folder, "model")


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_missing_weight_is_refused(folder, name):
    change_weights(folder / name, lambda state, first: state.pop(first))
    refused(folder, "missing")


@pytest.mark.parametrize("name", WEIGHTS)
def test_an_unknown_weight_is_refused(folder, name):
    change_weights(folder / name, lambda state, _: state.update(stranger=torch.zeros(2)))
    refused(folder, "stranger")


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_weight_of_another_shape_is_refused(folder, name):
    change_weights(folder / name, lambda state, first: state.update({first: torch.zeros(3, 5)}))
    refused(folder, "model")


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(folder, name, value):
    change_weights(folder / name, lambda state, first: state[first].view(-1)[-1:].fill_(value))
    refused(folder, "not finite")


@pytest.mark.parametrize("name", WEIGHTS[:2])
def test_whole_numbers_in_place_of_weights_are_refused(folder, name):
    change_weights(folder / name, lambda s, first: s.update({first: s[first].to(torch.int64)}))
    refused(folder, "int64")


class _Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("pickle-was-run"),))


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_pickle_in_place_of_safetensors_is_refused_and_not_run(folder, name, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / name).write_bytes(pickle.dumps(_Bomb()))
    refused(folder, "model")
    assert not (folder / "pickle-was-run").exists()


def test_a_decoder_with_only_pickled_weights_is_refused(folder):
    state = load_file(folder / "decoder/model.safetensors")
    (folder / "decoder/model.safetensors").unlink()
    torch.save(state, folder / "decoder/pytorch_model.bin")
    refused(folder, "decoder")


@pytest.mark.parametrize("name", [*SETTINGS, "decoder/tokenizer.json"])
@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "3", "\x00\x01"])
def test_settings_that_are_no_json_object_are_refused(folder, name, text):
    (folder / name).write_text(text)
    refused(folder, name.rpartition("/")[2])


def test_a_tokenizer_that_is_json_but_no_tokenizer_is_refused(folder):
    (folder / "decoder/tokenizer.json").write_text('{"version": "1.0"}')
    refused(folder, "decoder")


@pytest.mark.parametrize("version", [3, 99, 0, "1", None, True])
def test_another_format_is_refused_by_name(folder, version):
    change_json(folder / "earwitness.json", format=version)
    refused(folder, f"format {version!r}", "reads formats 1, 2")


def test_another_system_is_refused(folder):
    change_json(folder / "earwitness.json", system="whisper")
    refused(folder, "'whisper'", "'lamb'")


@pytest.mark.parametrize("config", [None, [], {"prefx": {}}, {"prefix": {"kind": "magic"}}])
def test_a_configuration_that_does_not_hold_is_refused(folder, config):
    change_json(folder / "earwitness.json", config=config)
    refused(folder, "earwitness.json")


def test_heads_that_do_not_divide_the_width_are_refused(folder):
    settings = json.loads((folder / "earwitness.json").read_text())
    settings["config"]["prefix"]["heads"] = 5
    (folder / "earwitness.json").write_text(json.dumps(settings))
    refused(folder, "heads 5", "24")


@pytest.mark.parametrize("kind", ["whisper", None, [], 3])
def test_an_unknown_encoder_kind_is_refused_with_the_known_ones(folder, kind):
    change_json(folder / "encoder/config.json", kind=kind)
    refused(folder, repr(kind), "ced, cnn")


@pytest.mark.parametrize("values", [{"dim": "wide"}, {"dims": 3}, {"channels": [1]}, {"dim": -1}])
def test_encoder_settings_that_make_no_sense_are_refused(folder, values):
    change_json(folder / "encoder/config.json", **values)
    refused(folder, next(iter(values)))


@pytest.mark.parametrize(
    "values",
    [
        {"model_type": "clap"},
        {"model_type": "no-such-model"},
        {"hidden_size": 48},
        {"vocab_size": 7},
        {"num_attention_heads": "two"},
        {"num_attention_heads": 0},
        {"num_hidden_layers": 5},
        {"model_type": "x", "auto_map": {"AutoConfig": "x.C", "AutoModelForCausalLM": "x.M"}},
    ],
)
def test_decoder_settings_that_make_no_sense_are_refused(folder, values):
    change_json(folder / "decoder/config.json", **values)
    refused(folder, "decoder")


def test_json_is_written_whole_and_read_back(tmp_path):
    path = tmp_path / "new" / "a.json"
    write_json(path, {"a": [1, 2.5, None], "b": "\u00e4"})
    assert read_json(path) == {"a": [1, 2.5, None], "b": "\u00e4"}
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


def test_weights_are_written_bitwise_and_integers_keep_their_type(tmp_path):
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    write_weights(tmp_path / "w.safetensors", module)
    state = read_weights(tmp_path / "w.safetensors")
    assert all(torch.equal(state[name], value) for name, value in module.state_dict().items())
    write_weights(tmp_path / "h.safetensors", module, torch.float16)
    half = read_weights(tmp_path / "h.safetensors")
    assert half["0.weight"].dtype == torch.float16
    assert half["1.num_batches_tracked"].dtype == torch.int64
    assert sorted(p.name for p in tmp_path.iterdir()) == ["h.safetensors", "w.safetensors"]


def test_nothing_is_loaded_where_something_does_not_fit():
    module = torch.nn.Linear(2, 2)
    before = module.weight.detach().clone()
    state = {"weight": torch.zeros(2, 2), "bias": torch.full((2,), float("nan"))}
    with pytest.raises(
        CheckpointError, match="here: weight 'bias' holds numbers that are not finite"
    ):
        load_weights(module, state, "here")
    assert torch.equal(module.weight, before)
