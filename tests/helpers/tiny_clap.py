"""Builders for CLAP tests: sounds, and a tiny random model in the hub's format."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from earwitness_lab.reproduce.tiny import clap_model, clap_tokenizer

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
    audio = {"enable_fusion": True, "fusion_type": "aff_2d", "aff_block_r": 2}
    return clap_model(12, **audio if fusion else {})


def write_folder(folder: Path, *, fusion: bool = False, **settings: Any) -> Path:
    from transformers import ClapFeatureExtractor

    tiny_model(fusion=fusion).save_pretrained(folder)
    ClapFeatureExtractor(**{**HUB_SETTINGS, **settings}).save_pretrained(folder)
    sentences = ["a dog barks while rain falls", "a man speaks and a car passes by"]
    clap_tokenizer(sentences).save_pretrained(folder)
    return folder
