"""Weights that came by name are loaded: encoders, decoders, number formats, refusals."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from hub_checkpoints import MAKERS, SOURCES, lamb, qwen_folder

from earwitness.encoders.base import Frames
from earwitness.errors import CheckpointError, ConfigError, MissingDependencyError
from earwitness.models.hub import resolve
from earwitness.system.captioner import Batch, load_decoder
from earwitness.system.decoder import DecoderConfig


@pytest.mark.parametrize("decoder", MAKERS)
@pytest.mark.parametrize("layout", ["plain", "llama2-chat"])
def test_decoders_of_the_hub_caption_and_learn(hub_cache, decoder, layout):
    captioner = lamb(decoder, layout=layout)
    captions = captioner.caption_batch(SOURCES)
    assert all(0 < caption.score <= 1 for caption in captions)
    texts = captioner.decoder.tokenize(["a dog barks"])
    assert int(texts.ids[0, -1]) == captioner.decoder.tokenizer.eos_token_id
    z = torch.zeros(1, 4, captioner.decoder.dim)
    logits = captioner.decoder(z, torch.ones(1, 4, dtype=torch.bool), texts)
    assert logits.shape[-1] == captioner.decoder.table.shape[0]
    assert bool(torch.isfinite(logits).all())


def test_sharded_weights_are_those_of_one_file(hub_cache, tmp_path):
    from transformers import AutoModelForCausalLM

    captioner = lamb("ada/smol", tune="frozen")
    whole = AutoModelForCausalLM.from_pretrained(resolve("ada/smol"), dtype=torch.float32)
    state = captioner.decoder.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in whole.state_dict().items())
    assert (
        captioner.decoder.model.lm_head.weight is captioner.decoder.model.model.embed_tokens.weight
    )


def test_rows_beyond_the_tokenizer_are_no_words(hub_cache):
    decoder = load_decoder(resolve("ada/qwen"), DecoderConfig(tune="frozen"))
    words = len(decoder.tokenizer)
    assert len(decoder.table) == words + 64
    assert bool(decoder.special[words:].all())
    assert not bool(decoder.special[words // 2 : words].any())


def test_a_table_shorter_than_the_tokenizer_is_refused(tmp_path):
    folder = qwen_folder(tmp_path / "short", rows=-7)
    with pytest.raises(CheckpointError, match=r"its tokenizer has \d+ tokens, its language model"):
        load_decoder(folder, DecoderConfig(tune="frozen"))


def test_a_missing_shard_is_refused(hub_cache, hub_folders, tmp_path):
    folder = Path(shutil.copytree(hub_folders["ada/llama"], tmp_path / "llama"))
    sorted(folder.glob("*.safetensors"))[1].unlink()
    with pytest.raises(CheckpointError, match="no such file; weights are read from safetensors"):
        load_decoder(folder, DecoderConfig())


def test_a_model_that_needs_its_own_code_is_refused_and_the_code_not_run(hub_folders, tmp_path):
    folder = Path(shutil.copytree(hub_folders["ada/llama"], tmp_path / "llama"))
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "ownllama", "auto_map": {"AutoModelForCausalLM": "own.Own"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text("raise SystemExit('was run')")
    with pytest.raises(CheckpointError, match="'ownllama' needs code from its repository"):
        load_decoder(folder, DecoderConfig())


def test_pickled_weights_alone_are_refused(hub_folders, tmp_path):
    folder = Path(shutil.copytree(hub_folders["ada/llama"], tmp_path / "llama"))
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    (folder / "pytorch_model-00001-of-00002.bin").write_bytes(b"pickle")
    with pytest.raises(CheckpointError, match="weights are pickled, pytorch_model-00001"):
        load_decoder(folder, DecoderConfig())


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("float32", torch.float32),
        ("bfloat16", torch.bfloat16),
        ("float16", torch.float16),
        ("auto", torch.float16),
    ],
)
def test_the_language_model_has_the_number_format_that_is_asked_for(hub_cache, dtype, expected):
    captioner = lamb(dtype=dtype).train()
    base = {n: p.dtype for n, p in captioner.decoder.named_parameters() if "lora_" not in n}
    assert set(base.values()) == {expected}
    trained = {n: p for n, p in captioner.named_parameters() if p.requires_grad}
    assert {p.dtype for p in trained.values()} == {torch.float32}
    assert any("lora_" in name for name in trained)


@pytest.mark.parametrize("dtype", ["bfloat16", "auto"])
def test_a_half_precision_language_model_is_trained_through(hub_cache, dtype):
    captioner = lamb(dtype=dtype).train()
    frames = torch.randn(2, 9, captioner.encoder.dim, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 9, dtype=torch.bool)
    batch = Batch(Frames(frames, mask), ["a dog barks", "rain falls"], torch.arange(2))
    sum(captioner(batch).values()).backward()
    assert captioner.prefix.project.weight.grad.abs().sum() > 0
    lora = [p.grad for n, p in captioner.named_parameters() if "lora_B" in n]
    assert all(bool(torch.isfinite(g).all()) and g.abs().sum() > 0 for g in lora)


def test_half_precision_changes_little(hub_cache):
    exact, half = lamb(tune="frozen"), lamb(tune="frozen", dtype="bfloat16")
    texts = exact.decoder.tokenize(["a dog barks"])
    z, mask = torch.randn(1, 4, exact.decoder.dim), torch.ones(1, 4, dtype=torch.bool)
    expected = exact.decoder(z, mask, texts).softmax(-1)
    torch.testing.assert_close(
        half.decoder(z, mask, texts).float().softmax(-1), expected, atol=1e-3, rtol=0.1
    )


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_attention_that_is_asked_for_is_used(hub_cache, attention):
    decoder = lamb(attention=attention, tune="frozen").decoder
    assert decoder.model.config._attn_implementation == attention


def test_attention_that_is_not_installed_is_told(hub_cache):
    with pytest.raises((MissingDependencyError, CheckpointError), match=r"(?i)flash.?attention"):
        lamb(attention="flash_attention_2")


def test_quantisation_without_its_package_names_the_extra(hub_cache, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"bitsandbytes: .*pip install .*\[qlora"):
        lamb(quantize="nf4")


def test_a_quantised_model_is_not_trained_in_full(hub_cache):
    with pytest.raises(ConfigError, match="decoder.tune 'full' with quantize 'nf4'"):
        lamb(quantize="nf4", tune="full")


def test_quantisation_is_qloras(monkeypatch):
    from earwitness.system import folder as model_folder

    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("transformers.BitsAndBytesConfig", lambda **settings: settings)
    settings = model_folder._load_settings(DecoderConfig(quantize="nf4", dtype="bfloat16"))
    assert settings == {
        "dtype": torch.bfloat16,
        "quantization_config": {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": torch.bfloat16,
        },
    }


def test_a_model_in_four_bits_computes_with_its_rounded_weights_on_the_cpu(hub_cache):
    """Against the same language model with the rounded weights written out in full."""
    functional = pytest.importorskip("bitsandbytes").functional
    whole, small = lamb(tune="frozen").decoder, lamb(tune="frozen", quantize="nf4").decoder
    packed = {
        name: module.weight
        for name, module in small.model.named_modules()
        if type(module).__name__ == "Linear4bit"
    }
    assert {weight.dtype for weight in packed.values()} == {torch.uint8}
    dense = dict(whole.model.named_parameters())
    before = whole.model(torch.arange(5)[None]).logits
    for name, weight in packed.items():
        rounded = functional.dequantize_4bit(weight.data, weight.quant_state)
        assert not torch.equal(dense[f"{name}.weight"], rounded)
        dense[f"{name}.weight"].data.copy_(rounded)
    expected, found = (d.model(torch.arange(5)[None]).logits.float() for d in (whole, small))
    # Arithmetic in bfloat16: 8 bits of every product.
    torch.testing.assert_close(found, expected, atol=0.02 * float(expected.std()), rtol=0.05)
    assert (found - expected).std() < 0.5 * (before - expected).std()


def test_lora_learns_on_four_bits_on_the_cpu_and_is_saved(hub_cache, tmp_path):
    pytest.importorskip("bitsandbytes")
    captioner = lamb(quantize="nf4").train()
    frames = torch.randn(2, 9, captioner.encoder.dim, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 9, dtype=torch.bool)
    batch = Batch(Frames(frames, mask), ["a dog barks", "rain falls"], torch.arange(2))
    trained = [p for p in captioner.parameters() if p.requires_grad]
    optimizer, losses = torch.optim.AdamW(trained, lr=1e-2), []
    for _ in range(8):
        loss = captioner(batch)["decode"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.1
    lora = [p.grad for n, p in captioner.named_parameters() if "lora_B" in n]
    assert all(bool(torch.isfinite(g).all()) and g.abs().sum() > 0 for g in lora)
    captioner.eval().save(tmp_path / "model")
    again = type(captioner).load(tmp_path / "model")
    said = [one.caption_batch(SOURCES)[0].text for one in (captioner, again)]
    assert said[0] == said[1]
