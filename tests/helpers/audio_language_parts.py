"""Tiny random audio-language models in the layout that the hub has them in."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>"]
TOKENS += ["<|audio_eos|>", "<sound>"]
TEXT = {
    **{"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2},
    **{"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 4096},
}
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
    encoder = {"model_type": "qwen2_audio_encoder", "num_mel_bins": 16, "d_model": 32}
    encoder |= {"encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 64}
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
    encoder = {"num_mel_bins": 16, "hidden_size": 32, "num_hidden_layers": 1}
    encoder |= {"num_attention_heads": 2, "intermediate_size": 64}
    config = AudioFlamingo3Config(
        audio_config=encoder,
        text_config={"model_type": "qwen2", "vocab_size": len(words), **TEXT},
        audio_token_id=words.convert_tokens_to_ids("<sound>"),
    )
    torch.manual_seed(0)
    processor = AudioFlamingo3Processor(_features(), words, FLAMINGO_CHAT)
    processor.save_pretrained(folder)
    return _write(folder, AudioFlamingo3ForConditionalGeneration(config), words)
