"""Builders for CLAP tests: sounds, and a tiny random model in the hub's format."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

RATE = 48_000
WINDOW = 10 * RATE
HUB_SETTINGS: dict[str, Any] = {"truncation": "rand_trunc", "frequency_min": 50}
"""what `laion/clap-htsat-unfused` changes of the extractor's own defaults"""


def sound(samples: int, seed: int = 0) -> Tensor:
    """Noise under a moving gain, with a tone: loud and quiet parts, full and empty bins."""
    g = torch.Generator().manual_seed(seed)
    time = torch.arange(samples) / RATE
    gain = 0.2 * (0.55 + 0.45 * torch.sin(2 * torch.pi * (0.3 + 0.1 * seed) * time + seed))
    tone = 0.3 * torch.sin(2 * torch.pi * (300 + 500 * seed) * time)
    return gain * torch.randn(samples, generator=g) + tone


def tiny_model(*, fusion: bool = False) -> Any:
    from transformers import ClapConfig, ClapModel

    audio: dict[str, Any] = {
        "patch_embeds_hidden_size": 8,
        "hidden_size": 64,
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 2, 2, 2],
    }
    if fusion:
        audio |= {"enable_fusion": True, "fusion_type": "aff_2d", "aff_block_r": 2}
    text = {
        "vocab_size": 300,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 40,
    }
    torch.manual_seed(0)
    model = ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=12))
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def tiny_tokenizer() -> Any:
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaTokenizer

    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        ["a dog barks while rain falls", "a man speaks and a car passes by"],
        vocab_size=290,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        show_progress=False,
    )
    model = json.loads(bpe.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    return RobertaTokenizer(vocab=model["vocab"], merges=merges, model_max_length=512)


def write_folder(folder: Path, *, fusion: bool = False, **settings: Any) -> Path:
    from transformers import ClapFeatureExtractor

    tiny_model(fusion=fusion).save_pretrained(folder)
    ClapFeatureExtractor(**{**HUB_SETTINGS, **settings}).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
