"""`earwitness export`, and what commands say where torch is not installed."""

from pathlib import Path

import pytest
import torch
from builders import tiny_captioner, tiny_decoder
from link_parts import untrained_link
from typer.testing import CliRunner

from earwitness import cli
from earwitness.encoders.ced import CED, CEDConfig
from earwitness.encoders.cnn import CNN, CNNConfig
from earwitness.errors import ConfigError, pip_install
from earwitness.export import model as export
from earwitness.export.decoder import LlamaSizes
from earwitness.lamb.baselines import QFormerConfig
from earwitness.lamb.token_guide import TokenGuideConfig
from earwitness.runtime import RuntimeCaptioner
from earwitness.system.captioner import TorchCaptioner
from earwitness.system.decoder import DecoderConfig


def run(*arguments: object):
    return CliRunner().invoke(cli.app, ["export", *map(str, arguments)])


def saved(captioner: TorchCaptioner, folder: Path) -> Path:
    captioner.save(folder)
    return folder


def test_export_writes_a_folder_that_captions_and_trains(tmp_path: Path) -> None:
    folder = saved(tiny_captioner(), tmp_path / "tiny")
    found = run(folder, tmp_path / "out", "--dtype", "float32")
    assert found.exit_code == 0, found.output
    assert "20 of 20 captions match the model's" in found.output.replace("\n", " ")
    assert RuntimeCaptioner.load(tmp_path / "out").name == "tiny"
    state = TorchCaptioner.load(tmp_path / "out").state_dict()
    for name, weight in TorchCaptioner.load(folder).state_dict().items():
        assert torch.equal(state[name], weight)


def test_export_adds_graphs_to_the_own_folder(tmp_path: Path) -> None:
    folder = saved(untrained_link(), tmp_path / "link")
    before = (folder / "prefix.safetensors").read_bytes()
    assert run(folder, folder, "--check", Path("examples/storm.flac").resolve()).exit_code == 0
    assert (folder / "prefix.safetensors").read_bytes() == before
    assert RuntimeCaptioner.load(folder).has_bridge


def test_graphs_that_onnxruntime_cannot_compute_are_one_sentence(tmp_path: Path) -> None:
    captioner = tiny_captioner()
    narrow = CNNConfig(stem=4, channels=(8, 8, 16), blocks=(1, 1, 1), dim=24, dilations=(1,))
    captioner.encoder = CNN(narrow).eval()
    found = run(saved(captioner, tmp_path / "narrow"), tmp_path / "out")
    assert (found.exit_code, (tmp_path / "out").exists()) == (1, False)
    assert "onnxruntime cannot compute the graphs of this model on sound 1" in str(found.exception)


@pytest.mark.filterwarnings("ignore")
def test_export_merges_lora(tmp_path: Path) -> None:
    captioner = tiny_captioner(decoder=DecoderConfig(tune="lora"))
    for name, parameter in captioner.decoder.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    captioner.save(tmp_path / "lora", merge=False)
    assert (tmp_path / "lora" / "lora").is_dir()
    export.export_model(tmp_path / "lora", tmp_path / "out", "float32")
    assert not (tmp_path / "out" / "lora").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"prefix": QFormerConfig(n_queries=2, layers=1, heads=2)},
            "cannot export a prefix of type QFormer to ONNX",
        ),
        ({"guide": TokenGuideConfig(metric="cosine")}, "guide metric 'cosine'"),
    ],
)
def test_export_refuses_parts_without_a_graph(tmp_path: Path, changes: dict, message: str) -> None:
    folder = saved(tiny_captioner(**changes), tmp_path / "tiny")
    with pytest.raises(ConfigError, match=message):
        export.export_model(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_export_refuses_other_encoders(tmp_path: Path) -> None:
    captioner = tiny_captioner()
    config = captioner.config.model_copy(update={"prefix": captioner.prefix.config})
    ced = CED(CEDConfig(depth=1, embed_dim=24, num_heads=2)).eval()
    folder = saved(
        TorchCaptioner(ced, tiny_decoder(config.decoder), config, "ced").eval(), tmp_path / "ced"
    )
    with pytest.raises(ConfigError, match="cannot export an encoder of type CED to ONNX"):
        export.export_model(folder, tmp_path / "out")


def test_export_refuses_large_and_other_language_models() -> None:
    llama_7b = {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 32000,
    }
    assert LlamaSizes.of(llama_7b).weights == pytest.approx(6.6e9, rel=0.01)
    with pytest.raises(ConfigError, match="'gpt2' to ONNX"):
        LlamaSizes.of({"model_type": "gpt2"})
    with pytest.raises(ConfigError, match="rope 'llama3'"):
        LlamaSizes.of(llama_7b | {"rope_parameters": {"rope_type": "llama3"}})


def test_export_refuses_a_large_model_before_it_is_read(tmp_path: Path, monkeypatch) -> None:
    folder = saved(tiny_captioner(), tmp_path / "tiny")
    monkeypatch.setattr(export, "LARGEST", 1000)
    (folder / "decoder" / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="too large for captioning without torch"):
        export.export_model(folder, tmp_path / "out")


def test_export_keeps_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(ConfigError, match="expected a new or empty folder"):
        export.export_model("pocket-lamb", tmp_path / "out")
    assert (tmp_path / "out" / "mine").read_text() == "mine"


def test_export_refuses_graphs_that_caption_otherwise(tmp_path: Path, monkeypatch) -> None:
    folder = saved(tiny_captioner(), tmp_path / "tiny")
    other = saved(tiny_captioner(seed=1), tmp_path / "other")
    export.write_graphs(other)
    load = RuntimeCaptioner.load
    monkeypatch.setattr(export.RuntimeCaptioner, "load", lambda *_: load(other))
    with pytest.raises(ConfigError, match="expected the same caption"):
        export.export_model(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_command_without_torch_names_the_extra(monkeypatch, capsys) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr("typer.Typer.__call__", missing)
    with pytest.raises(SystemExit) as stopped:
        cli.app()
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert error == f"earwitness: this needs torch: {pip_install('train')}\n"
