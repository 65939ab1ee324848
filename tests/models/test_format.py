"""Model folders hold the settings of the parts they have, and older folders still load."""

import json
import shutil
from pathlib import Path
from typing import Annotated, Any, Union, get_args

import pytest
from builders import noise, tiny_captioner
from link_parts import untrained_link
from pydantic import Field, create_model

from earwitness.errors import CheckpointError
from earwitness.lamb.baselines import LinearPrefixConfig, QFormerConfig
from earwitness.lamb.two_stream import TwoStreamConfig
from earwitness.link import AnyBridgeConfig, LinkPrefixConfig, load_bridge, save_bridge
from earwitness.models.names import model_folder
from earwitness.system import settings
from earwitness.system.captioner import TorchCaptioner

BRIDGES = get_args(get_args(AnyBridgeConfig)[0])
PREFIXES = (TwoStreamConfig, QFormerConfig, LinearPrefixConfig, LinkPrefixConfig)
POCKET = ("pocket-lamb", "pocket-link")
CLIP = (noise(1.0), 16000)


def one_of(configs: Any) -> Any:
    return Annotated[Union[tuple(configs)], Field(discriminator="kind")]  # noqa: UP007


def kind(config: Any) -> str:
    return config.model_fields["kind"].default


def config_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "earwitness.json").read_text())["config"]


@pytest.mark.parametrize("gone", BRIDGES, ids=kind)
def test_pocket_models_load_without_a_bridge_they_do_not_have(gone, monkeypatch):
    bridges = one_of(config for config in BRIDGES if config is not gone)
    link = create_model("LinkPrefixConfig", __base__=LinkPrefixConfig, bridge=(bridges, ...))
    prefixes = one_of((TwoStreamConfig, QFormerConfig, LinearPrefixConfig, link))
    without = create_model(
        "CaptionerConfig", __base__=settings.CaptionerConfig, prefix=(prefixes, ...)
    )
    monkeypatch.setattr(settings, "CaptionerConfig", without)
    for model in POCKET:
        if kind(gone) == config_of(model_folder(model))["prefix"].get("bridge", {}).get("kind"):
            with pytest.raises(CheckpointError, match=r"bridge\.kind.*diffusion_link"):
                TorchCaptioner.load(model)
        else:
            assert TorchCaptioner.load(model).name == model


@pytest.mark.parametrize("gone", PREFIXES, ids=kind)
def test_pocket_models_load_without_a_prefix_they_do_not_have(gone, monkeypatch):
    prefixes = one_of(config for config in PREFIXES if config is not gone)
    without = create_model(
        "CaptionerConfig", __base__=settings.CaptionerConfig, prefix=(prefixes, ...)
    )
    monkeypatch.setattr(settings, "CaptionerConfig", without)
    for model in POCKET:
        if config_of(model_folder(model))["prefix"]["kind"] == kind(gone):
            with pytest.raises(CheckpointError, match=r"prefix\.kind"):
                TorchCaptioner.load(model)
        else:
            assert TorchCaptioner.load(model).name == model


def test_a_folder_holds_no_key_of_a_part_it_lacks(tmp_path):
    tiny_captioner(guide=None, aligner=None, prefix=LinearPrefixConfig()).save(tmp_path / "linear")
    untrained_link("regressor").save(tmp_path / "link")
    folders = [tmp_path / "linear", tmp_path / "link", *map(model_folder, POCKET)]
    for folder in folders:
        text = json.dumps(config := config_of(folder))
        own = {config["prefix"]["kind"], config["prefix"].get("bridge", {}).get("kind")}
        for other in {kind(c) for c in (*BRIDGES, *PREFIXES)} - own:
            assert f'"{other}"' not in text or other == "none", (folder, other)
        assert None not in (config.get("guide", 0), config.get("aligner", 0))
        assert ("lora" in config["decoder"]) == (config["decoder"]["tune"] == "lora")
    assert "guide" not in config_of(tmp_path / "linear")
    assert TorchCaptioner.load(tmp_path / "linear").guide is None


def in_format_1(folder: Path) -> None:
    """Rewrites a folder as format 1 wrote it: a section per kind, whatever the model has."""
    path = folder / "earwitness.json"
    whole = json.loads(path.read_text())
    prefix = whole["config"]["prefix"]
    sections = {kind(c): without_kind(c().model_dump(mode="json")) for c in PREFIXES}
    sections[prefix["kind"]] = without_kind(prefix)
    sections["link"]["bridge"] = old_bridge(sections["link"]["bridge"])
    lora = {"r": 8, "alpha": 32, "dropout": 0.1, "targets": ["q_proj", "v_proj"]}
    decoder = {"lora": lora, **whole["config"]["decoder"]}
    config = {"guide": None, "aligner": None, **whole["config"], "decoder": decoder}
    config["prefix"] = {"kind": prefix["kind"], **sections}
    path.write_text(json.dumps({**whole, "format": 1, "config": config}))


def old_bridge(chosen: dict[str, Any]) -> dict[str, Any]:
    sections = {kind(c): without_kind(c().model_dump(mode="json")) for c in BRIDGES}
    return {"kind": chosen["kind"], **sections, chosen["kind"]: without_kind(chosen)}


def without_kind(section: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key != "kind"}


@pytest.mark.parametrize("model", POCKET)
def test_a_folder_of_format_1_captions_as_before(model, tmp_path):
    folder = Path(shutil.copytree(model_folder(model), tmp_path / model))
    in_format_1(folder)
    old, new = TorchCaptioner.load(folder), TorchCaptioner.load(model)
    assert old.config == new.config
    assert old.caption(CLIP) == new.caption(CLIP)
    old.save(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "earwitness.json").read_text())["format"] == 2


def test_a_part_that_a_later_version_dropped_does_not_stop_a_folder_of_format_1(tmp_path):
    folder = Path(shutil.copytree(model_folder("pocket-lamb"), tmp_path / "old"))
    in_format_1(folder)
    path = folder / "earwitness.json"
    whole = json.loads(path.read_text())
    whole["config"]["prefix"]["retired"] = {"size": 3}
    path.write_text(json.dumps(whole))
    assert TorchCaptioner.load(folder).name == "pocket-lamb"


def test_a_bridge_folder_of_format_1_loads(tmp_path):
    bridge = untrained_link().prefix.bridge
    save_bridge(bridge, tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(old_bridge(json.loads(path.read_text()))))
    assert load_bridge(tmp_path).config == bridge.config


def test_an_unknown_bridge_is_named_with_the_known_ones(tmp_path):
    save_bridge(untrained_link().prefix.bridge, tmp_path)
    (tmp_path / "config.json").write_text('{"kind": "magic"}')
    with pytest.raises(CheckpointError, match="'magic'") as caught:
        load_bridge(tmp_path)
    assert "'text_memory'" in str(caught.value)


def test_format_3_is_refused_by_name(tmp_path):
    tiny_captioner().save(tmp_path)
    path = tmp_path / "earwitness.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 3}))
    with pytest.raises(CheckpointError, match="model format 3; .* reads formats 1, 2"):
        TorchCaptioner.load(tmp_path)
