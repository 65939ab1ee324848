"""Tiny random checkpoints in exactly the hub's formats, and a captioner made of them by name."""

import json
from pathlib import Path

import tiny_clap
import torch
from builders import noise, tiny_tokenizer
from hub_parts import publish
from safetensors.torch import load_file, save_file

from earwitness.caption import Decoding
from earwitness.encoders import load_frame_encoder
from earwitness.encoders.ced import CED, CEDConfig
from earwitness.lamb.two_stream import TwoStreamConfig
from earwitness.models.hub import resolve
from earwitness.system.captioner import CaptionerConfig, TorchCaptioner, load_decoder
from earwitness.system.decoder import DecoderConfig

SOURCES = [(noise(2.0), 16000), (noise(0.7, 1), 16000), (noise(3.1, 2), 16000)]
CED_JSON = {
    **{"model_type": "ced", "architectures": ["CedForAudioClassification"], "qkv_bias": True},
    "auto_map": {"AutoConfig": "configuration_ced.CedConfig"},
    **{"embed_dim": 24, "depth": 2, "num_heads": 3, "mlp_ratio": 4.0, "outputdim": 527},
    **{"patch_size": 16, "patch_stride": 16, "target_length": 1012, "pooling": "mean"},
    **{"n_mels": 64, "n_fft": 512, "win_size": 512, "hop_size": 160, "f_min": 0, "f_max": 8000},
}
SIZES = {
    # Widths in blocks of 64, which bitsandbytes asks for where a CPU has AVX-512 BF16.
    **{"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2},
    **{"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 256},
}
CHAT = "{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}"


def ced_folder(folder: Path) -> Path:
    """As `mispeech/ced-*`: `encoder.` before every key but the head's, and a name for its code."""
    torch.manual_seed(0)
    ced = CED(CEDConfig(embed_dim=24, depth=2, num_heads=3))
    state = {
        (k if k.startswith("outputlayer") else f"encoder.{k}"): v.contiguous()
        for k, v in ced.state_dict().items()
    }
    folder.mkdir(parents=True)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CED_JSON))
    return folder


def llama_folder(folder: Path) -> Path:
    """As Llama 2 chat: several files of half-precision weights, no padding token, a template."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    tokenizer.chat_template = CHAT
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(1)
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=len(tokenizer), **SIZES, **ids, tie_word_embeddings=False)
    )
    return _with_old_buffers(_written(folder, model.half(), tokenizer))


def _with_old_buffers(folder: Path) -> Path:
    """Llama 2's files also hold the rotary frequencies of every layer, which are computed today."""
    path = sorted(folder.glob("*.safetensors"))[0]
    names = [f"model.layers.{i}.self_attn.rotary_emb.inv_freq" for i in range(2)]
    save_file(load_file(path) | {n: torch.ones(16) for n in names}, path, {"format": "pt"})
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"] |= dict.fromkeys(names, path.name)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def qwen_folder(folder: Path, rows: int = 64) -> Path:
    """As Qwen3: a table of more rows than there are tokens, tied with the head."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    torch.manual_seed(2)
    config = Qwen3Config(
        vocab_size=len(tokenizer) + rows,
        head_dim=16,
        tie_word_embeddings=True,
        **SIZES,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    return _written(folder, Qwen3ForCausalLM(config).bfloat16(), tokenizer)


def smol_folder(folder: Path) -> Path:
    """As SmolLM2: a Llama with tied embeddings and fewer heads for keys than for queries."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tiny_tokenizer()
    torch.manual_seed(3)
    sizes = {**SIZES, "num_attention_heads": 4}
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        **sizes,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return _written(folder, LlamaForCausalLM(config).bfloat16(), tokenizer)


def _written(folder: Path, model, tokenizer) -> Path:
    model.save_pretrained(folder, max_shard_size="20KB")
    tokenizer.save_pretrained(folder)
    assert (folder / "model.safetensors.index.json").is_file()
    return folder


MAKERS = {"ada/llama": llama_folder, "ada/qwen": qwen_folder, "ada/smol": smol_folder}


def make_parts(root: Path) -> dict[str, Path]:
    """Folders in the hub's formats, by name."""
    folders = {name: make(root / name) for name, make in MAKERS.items()}
    folders["ada/ced"] = ced_folder(root / "ada/ced")
    folders["ada/clap"] = tiny_clap.write_folder(root / "ada/clap")
    return folders


def publish_all(parts: dict[str, Path], cache: Path) -> Path:
    for name, folder in parts.items():
        publish(cache, name, folder)
    return cache


def lamb(decoder="ada/llama", **settings) -> TorchCaptioner:
    """A LAMB of parts by name, its own parts and LoRA weights made loud enough to be heard."""
    torch.manual_seed(0)
    config = CaptionerConfig(
        prefix=TwoStreamConfig(n_semantic=2, n_temporal=2, n_global=4, heads=2),
        decoder=DecoderConfig(**settings),
        decoding=Decoding(max_new_tokens=8),
    )
    made = load_decoder(resolve(decoder), config.decoder)
    captioner = TorchCaptioner(load_frame_encoder(resolve("ada/ced")), made, config, "lamb").eval()
    with torch.no_grad():
        captioner.prefix.project.weight.mul_(30)
        for name, weight in captioner.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.3)
    return captioner


def said(captioner: TorchCaptioner) -> list[tuple[str, float]]:
    return [(c.text, c.score) for c in captioner.caption_batch(SOURCES)]


def files(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
