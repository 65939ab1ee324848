"""What recipes share: the keys that name an encoder or a language model, and how these are opened.

A part is named by its weights (a folder, or a name on the hub), or a table of sizes makes an
untrained one.
"""

from typing import Any

from earwitness.config import Strict
from earwitness.encoders import load_frame_encoder
from earwitness.encoders.base import FrameEncoder
from earwitness.encoders.cnn import CNN, CNNConfig
from earwitness.errors import ConfigError
from earwitness.models.hub import WeightsName
from earwitness.models.llama import LlamaSize
from earwitness.system.captioner import load_decoder
from earwitness.system.decoder import Decoder, DecoderConfig
from earwitness.training.language_model import build, train_tokenizer


class FrameEncoderKeys(Strict):
    """Where a recipe's frame encoder comes from."""

    encoder: WeightsName | None = None
    """a frame encoder: a folder, or a name on the hub"""
    new_encoder: CNNConfig | None = None
    """instead of it, an untrained one"""


class DecoderKeys(Strict):
    """Where a recipe's language model comes from."""

    decoder: WeightsName | None = None
    """a causal language model: a folder, or a name on the hub"""
    new_decoder: LlamaSize | None = None
    """instead of it, an untrained one, with a tokenizer made from the training captions"""


def open_frame_encoder(keys: FrameEncoderKeys) -> FrameEncoder:
    """The encoder that `keys` name. Raises ConfigError if they name none."""
    if keys.encoder:
        return load_frame_encoder(keys.encoder)
    if keys.new_encoder:
        return CNN(keys.new_encoder).eval()
    raise not_named("encoder", "encoder")


def open_language_model(keys: DecoderKeys, config: DecoderConfig, captions: list[str]) -> Decoder:
    """The language model that `keys` name; `captions` train the tokenizer of a new one.

    Raises:
        ConfigError: the keys name none.
    """
    if keys.decoder:
        return load_decoder(keys.decoder, config)
    if keys.new_decoder:
        tokenizer, model = new_language_model(keys.new_decoder, captions)
        return Decoder(model, tokenizer, config)
    raise not_named("decoder", "decoder")


def new_language_model(size: LlamaSize, captions: list[str]) -> tuple[Any, Any]:
    """(tokenizer, model): an untrained Llama behind a tokenizer made from `captions`."""
    tokenizer = train_tokenizer(captions, size.vocabulary)
    return tokenizer, build(size, tokenizer)


def not_named(part: str, key: str) -> ConfigError:
    """The error of a recipe that names neither weights nor sizes of a part."""
    return ConfigError(f"the recipe names no {part}: set '{key}' to a folder, or [new_{key}]")
