"""A tiny Diffusion-Link for tests: its parts untrained, and its stages on synthetic sounds."""

from pathlib import Path
from typing import Any

import torch
from builders import tiny_decoder, tiny_tokenizer

from earwitness.caption import Decoding
from earwitness.encoders import EmbeddingFrames
from earwitness.encoders.cnn import CNN, CNNConfig
from earwitness.encoders.dual import DualConfig, DualEncoder, TextTowerConfig
from earwitness.link import LinkPrefixConfig
from earwitness.system.captioner import CaptionerConfig, TorchCaptioner
from earwitness.system.decoder import DecoderConfig
from earwitness.training.bridge import BridgeRecipe
from earwitness.training.contrastive import ContrastiveRecipe
from earwitness.training.link import LinkRecipe

CNN_SIZES: dict[str, Any] = {
    "stem": 8,
    "channels": [16, 16, 32],
    "blocks": [0, 0, 0],
    "dim": 48,
    "dilations": [1],
}
LLAMA: dict[str, Any] = {
    "vocabulary": 400,
    "hidden": 48,
    "layers": 2,
    "heads": 2,
    "feed_forward": 96,
}
SOURCE: dict[str, Any] = {"kind": "synthetic", "clips": 160, "heldout_clips": 40, "seconds": 1.0}


def tiny_dual(seed: int = 0, **changes: Any) -> DualEncoder:
    """An untrained dual encoder of width 16 with windows of one second."""
    torch.manual_seed(seed)
    frames = CNN(CNNConfig.model_validate(CNN_SIZES)).eval()
    tokenizer = tiny_tokenizer()
    text = TextTowerConfig(
        vocabulary=len(tokenizer), hidden=32, layers=1, heads=2, feed_forward=64, max_tokens=20
    )
    settings = {"dim": 16, "hidden": 32, "window_seconds": 1.0, "stride_seconds": 1.0, **changes}
    return DualEncoder(frames, tokenizer, DualConfig(**settings, text=text)).eval()


def untrained_link(kind: str = "diffusion_link") -> TorchCaptioner:
    """A system over `tiny_dual` whose bridge is fitted and gives more than zeros."""
    link = LinkPrefixConfig.model_validate({"bridge": {"kind": kind}, "hidden": 16})
    config = CaptionerConfig(
        prefix=link,
        decoder=DecoderConfig(tune="full"),
        decoding=Decoding(max_new_tokens=6),
        guide=None,
        aligner=None,
    )
    captioner = TorchCaptioner(
        EmbeddingFrames(tiny_dual()), tiny_decoder(), config, "tiny-link"
    ).eval()
    bridge = captioner.prefix.bridge
    bridge.fit_statistics(torch.randn(30, 16), torch.randn(30, 16))
    for parameter in bridge.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return captioner


def fit(epochs: int, rate: float, batch: int = 40) -> dict[str, Any]:
    return {
        "epochs": epochs,
        "batch_size": batch,
        "learning_rate": rate,
        "warmup_epochs": 1.0,
        "validate_every": epochs,
        "save_every": 0,
    }


def contrastive_recipe(epochs: int = 8) -> ContrastiveRecipe:
    return ContrastiveRecipe.model_validate(
        {
            "stage": "contrastive",
            "source": SOURCE,
            "new_encoder": CNN_SIZES,
            "new_text": LLAMA,
            "dual": {"dim": 16, "hidden": 32, "window_seconds": 1.0, "stride_seconds": 1.0},
            "fit": fit(epochs, 3e-3),
        }
    )


def bridge_recipe(run: Path, kind: str = "diffusion_link", epochs: int = 80) -> BridgeRecipe:
    return BridgeRecipe.model_validate(
        {
            "stage": "bridge",
            "encoder": run / "clap" / "best" / "encoder",
            "source": SOURCE,
            "bridge": {"kind": kind},
            "fit": fit(epochs, 2e-3, 80),
        }
    )


def link_recipe(run: Path, protocol: str, **changes: Any) -> LinkRecipe:
    return LinkRecipe.model_validate(
        {
            "stage": "link",
            "name": "tiny-link",
            "protocol": protocol,
            "source": SOURCE,
            "encoder": run / "clap" / "best" / "encoder",
            "bridge": run / "bridge" / "best" / "bridge",
            "new_decoder": LLAMA,
            "hidden": 64,
            "language_model": {"tune": "full", "instruction": "Describe the audio you hear."},
            "decoding": {"beam_size": 2, "max_new_tokens": 12},
            "fit": fit(30, 4e-3),
            **changes,
        }
    )
