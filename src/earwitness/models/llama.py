"""Small Llamas: their sizes in recipes and model folders, and the settings transformers builds them
from.
"""

from typing import TYPE_CHECKING, Any

from pydantic import PositiveInt

from earwitness.config import Strict

if TYPE_CHECKING:
    from transformers import LlamaConfig


class LlamaSize(Strict):
    """Sizes of a small Llama."""

    vocabulary: PositiveInt = 4096
    hidden: PositiveInt = 320
    layers: PositiveInt = 4
    heads: PositiveInt = 5
    feed_forward: PositiveInt = 864


def llama_config(size: LlamaSize, **more: Any) -> "LlamaConfig":
    """The settings of a Llama of this size; `more` as in `LlamaConfig`."""
    from transformers import LlamaConfig

    settings: dict[str, Any] = {
        "vocab_size": size.vocabulary,
        "hidden_size": size.hidden,
        "intermediate_size": size.feed_forward,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "max_position_embeddings": 512,
    }
    return LlamaConfig(**(settings | more))
