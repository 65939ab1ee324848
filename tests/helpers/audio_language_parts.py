"""Tiny random audio-language models in the layout that the hub has them in."""

import base64
import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>"]
TOKENS += ["<|audio_eos|>", "<sound>"]
TEXT = {
    **{"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2},
    **{"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 4096},
}
"""rows are whole blocks of 64, as bitsandbytes has them"""
FLAMINGO_CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for c in m['content'] %}{% if c['type'] == 'audio' %}<sound>{% endif %}{% endfor %}"
    "{% for c in m['content'] %}{% if c['type'] == 'text' %}{{ c['text'] }}{% endif %}{% endfor %}"
    "{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""in the form of the published ones: the sounds, then the question"""


def tokenizer() -> Any:
    """A byte-level tokenizer without merges, of Qwen2's class and special tokens."""
    from transformers import Qwen2Tokenizer

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    found = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(letters)}, merges=[]))
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    fast = Qwen2Tokenizer(tokenizer_object=found, eos_token="<|im_end|>", pad_token=TOKENS[0])
    fast.add_special_tokens({"additional_special_tokens": TOKENS})
    return fast


def _features() -> Any:
    from transformers import WhisperFeatureExtractor

    return WhisperFeatureExtractor(feature_size=16, return_attention_mask=True)


def _write(folder: Path, model: Any, words: Any) -> Path:
    ends = {"eos_token_id": [words.convert_tokens_to_ids(t) for t in ("<|im_end|>", TOKENS[0])]}
    model.generation_config.update(**ends, pad_token_id=words.pad_token_id)
    # A random model says the same of every sound; louder weights make it listen.
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(5)
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size="100KB")
    words.save_pretrained(folder)
    return folder


def qwen2_audio(folder: Path) -> Path:
    """As Qwen/Qwen2-Audio-7B-Instruct: shards, a preprocessor_config.json, no chat template."""
    from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration

    words = tokenizer()
    encoder = {"model_type": "qwen2_audio_encoder", "num_mel_bins": 16, "d_model": 64}
    encoder |= {"encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 128}
    config = Qwen2AudioConfig(
        audio_config=encoder,
        text_config={"model_type": "qwen2", "vocab_size": len(words), **TEXT},
        audio_token_index=words.convert_tokens_to_ids("<|AUDIO|>"),
    )
    torch.manual_seed(0)
    _features().save_pretrained(folder)
    return _write(folder, Qwen2AudioForConditionalGeneration(config), words)


def audio_flamingo(folder: Path) -> Path:
    """As nvidia/audio-flamingo-3-hf: a processor_config.json and a chat_template.jinja."""
    from transformers import (
        AudioFlamingo3Config,
        AudioFlamingo3ForConditionalGeneration,
        AudioFlamingo3Processor,
    )

    words = tokenizer()
    encoder = {"num_mel_bins": 16, "hidden_size": 64, "num_hidden_layers": 1}
    encoder |= {"num_attention_heads": 2, "intermediate_size": 128}
    config = AudioFlamingo3Config(
        audio_config=encoder,
        text_config={"model_type": "qwen2", "vocab_size": len(words), **TEXT},
        audio_token_id=words.convert_tokens_to_ids("<sound>"),
    )
    torch.manual_seed(0)
    processor = AudioFlamingo3Processor(_features(), words, FLAMINGO_CHAT)
    processor.save_pretrained(folder)
    return _write(folder, AudioFlamingo3ForConditionalGeneration(config), words)


def voxtral(folder: Path) -> Path:
    """As mistralai/Voxtral-Mini-3B-2507: shards, a preprocessor_config.json, a tekken.json."""
    from transformers import VoxtralConfig, VoxtralForConditionalGeneration, WhisperFeatureExtractor

    size, special = 356, 100
    encoder = {"model_type": "voxtral_encoder", "num_mel_bins": 16, "hidden_size": 64}
    encoder |= {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 256}
    encoder |= {"vocab_size": size}
    config = VoxtralConfig(
        audio_config=encoder,
        text_config={"model_type": "llama", "vocab_size": size, **TEXT, "head_dim": 32},
        audio_token_id=24,
    )
    torch.manual_seed(0)
    model = VoxtralForConditionalGeneration(config)
    model.generation_config.update(bos_token_id=1, eos_token_id=2, pad_token_id=11)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(5)
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size="100KB")
    WhisperFeatureExtractor(feature_size=16).save_pretrained(folder)
    (folder / "tekken.json").write_text(json.dumps(_tekken(size, special)))
    return folder


def _tekken(size: int, special: int) -> dict[str, Any]:
    """A tokenizer of bytes in Mistral's own format, with the names of Voxtral's control tokens."""
    names = "<unk> <s> </s> [INST] [/INST] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_RESULTS]"
    names += " [/TOOL_RESULTS] [TOOL_CALLS] [IMG] <pad> [IMG_BREAK] [IMG_END] [PREFIX] [MIDDLE]"
    names += " [SUFFIX] [SYSTEM_PROMPT] [/SYSTEM_PROMPT] [TOOL_CONTENT]"
    known = dict(enumerate(names.split())) | {24: "[AUDIO]", 25: "[BEGIN_AUDIO]"}
    known |= {34: "[TRANSCRIBE]"}
    control = [(i, known.get(i, f"<SPECIAL_{i}>")) for i in range(special)]
    letters = [base64.b64encode(bytes([i])).decode() for i in range(size - special)]
    return {
        "config": {
            "pattern": r"\s+|\S",
            "num_vocab_tokens": len(letters),
            "default_vocab_size": size,
            "default_num_special_tokens": special,
            "version": "v7",
        },
        "vocab": [{"rank": i, "token_bytes": b, "token_str": None} for i, b in enumerate(letters)],
        "special_tokens": [{"rank": i, "token_str": t, "is_control": True} for i, t in control],
        "audio": {
            "sampling_rate": 16_000,
            "frame_rate": 12.5,
            "audio_encoding_config": {"num_mel_bins": 16, "hop_length": 160, "window_size": 400},
            "chunk_length_s": 30.0,
        },
    }
