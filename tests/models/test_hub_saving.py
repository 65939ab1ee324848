"""Models made of parts that came by name: what is saved, found again, pushed and refused."""

import json
from pathlib import Path

import pytest
import tiny_clap
import torch
from builders import tiny_captioner
from hub_checkpoints import MAKERS, SOURCES, files, lamb, said
from hub_parts import copying_api, offline, publish
from safetensors.torch import load_file, save_file

from earwitness.caption import Decoding
from earwitness.encoders import EmbeddingFrames, load_embedding_encoder
from earwitness.errors import CheckpointError, ConfigError
from earwitness.link import LinkPrefixConfig
from earwitness.models.hub import hub_part, resolve
from earwitness.system.captioner import CaptionerConfig, TorchCaptioner, load_decoder
from earwitness.system.decoder import DecoderConfig, LoraConfig
from earwitness.system.folder import open_decoder
from earwitness.training.stages import run_recipe


@pytest.mark.parametrize("decoder", MAKERS)
def test_what_came_from_the_hub_is_named_and_not_copied(hub_cache, tmp_path, decoder):
    captioner = lamb(decoder)
    captioner.save(tmp_path / "model")
    assert files(tmp_path / "model") == {
        "earwitness.json",
        "prefix.safetensors",
        "lora/adapter_config.json",
        "lora/adapter_model.safetensors",
    }
    settings = json.loads((tmp_path / "model/earwitness.json").read_text())
    expected = {name: hub_part(resolve(f"ada/{name}")) for name in ("ced",)}
    assert settings["parts"]["encoder"] == expected["ced"].model_dump()
    assert settings["parts"]["decoder"] == hub_part(resolve(decoder)).model_dump()
    adapter = json.loads((tmp_path / "model/lora/adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == decoder
    assert adapter["revision"] == hub_part(resolve(decoder)).revision
    assert str(tmp_path) not in (tmp_path / "model/earwitness.json").read_text()


@pytest.mark.parametrize("settings", [{}, {"tune": "frozen"}, {"dtype": "bfloat16"}])
@pytest.mark.parametrize("decoder", MAKERS)
def test_a_named_part_is_found_again_and_says_the_same(hub_cache, tmp_path, decoder, settings):
    captioner = lamb(decoder, **settings)
    expected = said(captioner)
    captioner.save(tmp_path / "model")
    loaded = TorchCaptioner.load(tmp_path / "model")
    before, after = captioner.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert said(loaded) == expected
    loaded.save(tmp_path / "again")
    for name in files(tmp_path / "model"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "model" / name).read_bytes()


def test_the_lora_folder_is_one_that_peft_reads(hub_cache, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    captioner = lamb()
    captioner.save(tmp_path / "model")
    base = AutoModelForCausalLM.from_pretrained(resolve("ada/llama"), dtype=torch.float32)
    theirs = PeftModel.from_pretrained(base, tmp_path / "model/lora").eval()
    ids = torch.arange(9)[None]
    expected = captioner.decoder.model(input_ids=ids).logits
    torch.testing.assert_close(theirs(input_ids=ids).logits, expected)


def test_a_branch_that_moves_does_not_move_a_saved_model(hub_cache, hub_folders, tmp_path):
    captioner = lamb()
    captioner.save(tmp_path / "model")
    expected = said(captioner)
    publish(hub_cache, "ada/llama", hub_folders["ada/smol"])
    assert said(TorchCaptioner.load(tmp_path / "model")) == expected
    assert said(lamb()) != expected


def test_a_named_part_that_is_not_to_be_had_is_told(hub_cache, tmp_path, monkeypatch):
    lamb().save(tmp_path / "model")
    offline(tmp_path / "empty", monkeypatch)
    with pytest.raises(CheckpointError, match=r"ada/llama@[0-9a-f]{40}: .*HF_HUB_OFFLINE is set"):
        TorchCaptioner.load(tmp_path / "model")


@pytest.mark.parametrize(
    "part", [{"hub": "ada/llama"}, {"hub": "ada/llama", "revision": "main"}, "ada/llama", None]
)
def test_a_named_part_without_a_commit_is_refused(hub_cache, tmp_path, part):
    lamb().save(tmp_path / "model")
    path = tmp_path / "model/earwitness.json"
    settings = json.loads(path.read_text())
    settings["parts"]["decoder"] = part
    path.write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match=r"earwitness\.json: "):
        TorchCaptioner.load(tmp_path / "model")


def test_merged_and_copied_folders_hold_everything(hub_cache, tmp_path, monkeypatch):
    captioner = lamb()
    expected = said(captioner)
    captioner.save(tmp_path / "merged", merge=True, refer=False)
    captioner.save(tmp_path / "beside", merge=False, refer=False)
    offline(tmp_path / "empty", monkeypatch)
    merged, beside = (
        TorchCaptioner.load(tmp_path / "merged"),
        TorchCaptioner.load(tmp_path / "beside"),
    )
    assert not any("lora" in name for name, _ in merged.named_parameters())
    assert [text for text, _ in said(merged)] == [text for text, _ in expected]
    assert [s for _, s in said(merged)] == pytest.approx([s for _, s in expected], abs=1e-4)
    assert said(beside) == expected
    made = json.loads((tmp_path / "merged/earwitness.json").read_text())["card"]["made_from"]
    assert made["decoder"]["hub"] == "ada/llama"
    assert merged.card["made_from"] == made
    for path in (tmp_path / "merged").rglob("*.json"):
        assert str(hub_cache) not in path.read_text(), path


def test_merged_weights_are_written_where_only_the_encoder_is_named(hub_cache, tmp_path):
    captioner = lamb()
    captioner.save(tmp_path / "model", merge=True)
    settings = json.loads((tmp_path / "model/earwitness.json").read_text())
    assert set(settings["parts"]) == {"encoder"}
    merged = load_file(tmp_path / "model/decoder/model.safetensors")
    base = load_decoder(resolve("ada/llama"), DecoderConfig(tune="frozen")).model.state_dict()
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(merged[name], base[name])
    assert [text for text, _ in said(TorchCaptioner.load(tmp_path / "model"))] == [
        text for text, _ in said(captioner)
    ]


def test_parts_that_were_trained_are_copied(hub_cache, tmp_path):
    captioner = lamb(tune="full")
    captioner.encoder.requires_grad_(True)
    captioner.save(tmp_path / "model")
    assert "parts" not in json.loads((tmp_path / "model/earwitness.json").read_text())
    assert (tmp_path / "model/decoder/config.json").is_file()
    assert (tmp_path / "model/encoder/config.json").is_file()


def change(path: Path, **values) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def damage_lora(folder: Path, how: str) -> None:
    path = folder / "lora/adapter_model.safetensors"
    state = load_file(path)
    first = sorted(state)[0]
    if how == "missing":
        state.pop(first)
    elif how == "unknown":
        state["stranger"] = torch.zeros(2)
    elif how == "shape":
        state[first] = torch.zeros(3, 5)
    elif how == "finite":
        state[first][0, 0] = float("nan")
    save_file(state, path)
    if how == "gone":
        path.unlink()
    if how == "cut":
        path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("missing", "is missing"),
        ("unknown", "'stranger' is unknown"),
        ("shape", "has shape"),
        ("finite", "not finite"),
        ("gone", "no such file"),
        ("cut", "not a safetensors file"),
    ],
)
def test_damaged_lora_weights_are_refused(hub_cache, tmp_path, how, words):
    lamb().save(tmp_path / "model")
    damage_lora(tmp_path / "model", how)
    with pytest.raises(CheckpointError, match=words):
        TorchCaptioner.load(tmp_path / "model")


@pytest.mark.parametrize(
    "settings", [{"r": 4}, {"lora_alpha": 1}, {"use_dora": True}, {"peft_type": "IA3"}]
)
def test_lora_settings_that_disagree_are_refused(hub_cache, tmp_path, settings):
    lamb().save(tmp_path / "model")
    change(tmp_path / "model/lora/adapter_config.json", **settings)
    with pytest.raises(ConfigError, match=f"{next(iter(settings))} is"):
        TorchCaptioner.load(tmp_path / "model")


def test_lora_goes_on_training_as_it_was(hub_cache, tmp_path):
    captioner = lamb()
    captioner.save(tmp_path / "model")
    config = DecoderConfig(tune="lora", word_dropout=0.1)
    decoder = open_decoder(tmp_path / "model", config, train=True)
    state = captioner.decoder.state_dict()
    assert all(torch.equal(state[name], value) for name, value in decoder.state_dict().items())
    assert {n for n, p in decoder.named_parameters() if p.requires_grad} == {
        n for n, _ in decoder.named_parameters() if "lora_" in n
    }
    for other in (DecoderConfig(tune="full"), DecoderConfig(lora=LoraConfig(r=2))):
        with pytest.raises(ConfigError):
            open_decoder(tmp_path / "model", other, train=True)


def test_a_clap_by_name_carries_a_diffusion_link(hub_cache, tmp_path):
    config = CaptionerConfig(
        prefix=LinkPrefixConfig(hidden=16),
        decoder=DecoderConfig(),
        guide=None,
        aligner=None,
        decoding=Decoding(max_new_tokens=6),
    )
    encoder = EmbeddingFrames(load_embedding_encoder(resolve("ada/clap")))
    torch.manual_seed(0)
    decoder = load_decoder(resolve("ada/smol"), config.decoder)
    captioner = TorchCaptioner(encoder, decoder, config, "link").eval()
    source = (tiny_clap.sound(48000).numpy(), 48000)
    captioner.save(tmp_path / "model")
    settings = json.loads((tmp_path / "model/earwitness.json").read_text())
    assert settings["parts"]["encoder"]["hub"] == "ada/clap"
    assert TorchCaptioner.load(tmp_path / "model").caption(source) == captioner.caption(source)


def test_a_model_pushed_and_loaded_by_name_says_the_same(hub_cache, monkeypatch):
    captioner = lamb()
    expected = said(captioner)
    calls = copying_api(hub_cache, monkeypatch)
    name = captioner.push_to_hub("ada/lamb", private=True, revision="v1")
    assert calls[0][1]["private"] is True
    for there in (name, "ada/lamb@v1"):
        assert said(TorchCaptioner.load(there)) == expected
    assert "README.md" in files(resolve(name))
    with pytest.raises(CheckpointError, match="ada/lamb"):
        TorchCaptioner.load("ada/lamb")


def test_a_self_contained_model_makes_the_round_trip(tmp_path, monkeypatch):
    captioner = tiny_captioner()
    copying_api(tmp_path / "cache", monkeypatch)
    name = captioner.push_to_hub("ada/tiny")
    loaded = TorchCaptioner.load("ada/tiny")
    assert loaded.caption_batch(SOURCES) == captioner.caption_batch(SOURCES)
    assert loaded.card == captioner.card
    assert hub_part(resolve("ada/tiny")).revision == name.partition("@")[2]


RECIPE = """
stage = "lamb"
encoder = "ada/ced"
decoder = "ada/smol@main"
[source]
kind = "synthetic"
clips = 8
heldout_clips = 4
[validation]
metrics = ["cider_d"]
[model]
decoding = {max_new_tokens = 4}
[model.prefix]
kind = "two_stream"
n_semantic = 2
n_temporal = 2
n_global = 4
heads = 2
[fit]
epochs = 1
batch_size = 4
"""


@pytest.mark.slow
def test_a_recipe_names_its_weights_and_its_model_the_commits(hub_cache, tmp_path):
    (tmp_path / "lamb.toml").write_text(RECIPE)
    run_recipe(tmp_path / "lamb.toml", tmp_path / "run")
    commits = {n: hub_part(resolve(n)).revision for n in ("ada/ced", "ada/smol")}
    record = json.loads((tmp_path / "run/weights.json").read_text())
    assert record == {"ada/ced": commits["ada/ced"], "ada/smol@main": commits["ada/smol"]}
    model = tmp_path / "run/best"
    assert files(model) >= {"lora/adapter_model.safetensors", "prefix.safetensors"}
    assert not (model / "decoder").exists()
    settings = json.loads((model / "earwitness.json").read_text())
    assert settings["parts"]["decoder"]["revision"] == commits["ada/smol"]
    captions = TorchCaptioner.load(model).caption_batch(SOURCES)
    assert len(captions) == len(SOURCES)
    on = [f"init={model}", "encoder=ada/ced", "fit.epochs=1"]
    run_recipe(tmp_path / "lamb.toml", tmp_path / "on", on)
    assert (tmp_path / "on/best/lora/adapter_model.safetensors").is_file()
