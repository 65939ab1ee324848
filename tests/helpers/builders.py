"""Tiny real parts for tests: the classes of the product with small numbers."""

from pathlib import Path

import numpy as np
import torch

from earwitness.caption import Decoding
from earwitness.encoders.cnn import CNN, CNNConfig
from earwitness.export.folder import write_graphs
from earwitness.lamb.two_stream import TwoStreamConfig
from earwitness.models.llama import LlamaSize
from earwitness.system.captioner import CaptionerConfig, TorchCaptioner
from earwitness.system.decoder import Decoder, DecoderConfig
from earwitness.training.language_model import build, train_tokenizer

SENTENCES = [
    "a dog barks and a man speaks",
    "a man speaks while birds chirp in the background",
    "rain falls and thunder roars",
    "a car passes by followed by a siren",
    "a woman speaks and a baby cries",
]


def tiny_tokenizer():
    """A byte-level BPE tokenizer of a few hundred tokens."""
    return train_tokenizer(SENTENCES * 20, 400)


def tiny_decoder(config: DecoderConfig | None = None, seed: int = 0) -> Decoder:
    """A two-layer Llama of width 32 behind a tiny tokenizer."""
    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer()
    size = LlamaSize(hidden=32, layers=2, heads=2, feed_forward=64)
    return Decoder(build(size, tokenizer), tokenizer, config or DecoderConfig(tune="full"))


def tiny_captioner(seed: int = 0, **changes) -> TorchCaptioner:
    """A whole LAMB system of about 100,000 weights, untrained."""
    torch.manual_seed(seed)
    encoder = CNN(CNNConfig(stem=4, channels=(8, 8, 16), blocks=(0, 0, 0), dim=24, dilations=(1,)))
    prefix = TwoStreamConfig(n_semantic=2, n_temporal=2, n_global=4, heads=2, dropout=0.0)
    settings = {"prefix": prefix, "decoding": Decoding(max_new_tokens=8), **changes}
    config = CaptionerConfig(**{"decoder": DecoderConfig(tune="full"), **settings})
    return TorchCaptioner(encoder.eval(), tiny_decoder(config.decoder, seed), config, "tiny").eval()


def tiny_model_folder(folder: Path, seed: int = 0) -> Path:
    """A model folder as training leaves it."""
    tiny_captioner(seed).save(folder)
    return folder


def tiny_exported_folder(folder: Path, seed: int = 0) -> Path:
    """A model folder that captions without torch: a command with it starts in a second."""
    write_graphs(tiny_model_folder(folder, seed))
    return folder


def noise(seconds: float, seed: int = 0, rate: int = 16000) -> np.ndarray:
    """White noise at -20 dB, float32."""
    rng = np.random.default_rng(seed)
    return (0.1 * rng.standard_normal(round(seconds * rate))).astype(np.float32)
