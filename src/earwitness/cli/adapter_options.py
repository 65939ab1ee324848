"""The options for third-party models, for the commands that accept them."""

from enum import StrEnum
from typing import Annotated

import typer

from earwitness.adapters.settings import AdapterOptions
from earwitness.config import validate

_PANEL = "Other models (hf:, openai:)"

MODEL_HELP = (
    "A pocket model, a model folder, or owner/name on the Hugging Face hub; hf:owner/name for an "
    "audio-language model from transformers; openai:name for one behind a server."
)


class Quantize(StrEnum):
    """Number format of the weights of an hf: model."""

    none = "none"
    int8 = "int8"
    nf4 = "nf4"


Prompt = Annotated[
    str | None,
    typer.Option(help="Prompt for the model; default: a built-in one.", rich_help_panel=_PANEL),
]
Quantized = Annotated[
    Quantize,
    typer.Option(
        help="Load the weights in 8 or 4 bits (bitsandbytes; hf:).", rich_help_panel=_PANEL
    ),
]
BaseUrl = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="The server, such as http://gpu:8000/v1 for vLLM or SGLang; its key comes from "
        "OPENAI_API_KEY (openai:).",
        rich_help_panel=_PANEL,
    ),
]


def adapter_of(prompt: str | None, quantize: Quantize, base_url: str | None) -> AdapterOptions:
    """The options as one object. Raises ConfigError."""
    given = {"quantize": quantize.value, "base_url": base_url}
    if prompt is not None:
        given["prompt"] = prompt
    return validate(AdapterOptions, given, "the options")
