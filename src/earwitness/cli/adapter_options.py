"""The options of models that are not earwitness's own, for the commands that take one."""

from enum import StrEnum
from typing import Annotated

import typer

from earwitness.adapters.settings import AdapterOptions
from earwitness.config import validate

_PANEL = "Other models (hf:, openai:)"

MODEL_HELP = (
    "A pocket model, a model folder, or owner/name on the Hugging Face hub; hf:owner/name for an "
    "audio-language model of transformers; openai:name for one behind a server."
)


class Quantize(StrEnum):
    """Number format of the weights of an hf: model."""

    none = "none"
    int8 = "int8"
    nf4 = "nf4"


Prompt = Annotated[
    str | None,
    typer.Option(help="What the model is asked; default: one of ours.", rich_help_panel=_PANEL),
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
        help="The server, such as http://gpu:8000/v1 of vLLM or SGLang; its key in OPENAI_API_KEY "
        "(openai:).",
        rich_help_panel=_PANEL,
    ),
]


def adapter_of(prompt: str | None, quantize: Quantize, base_url: str | None) -> AdapterOptions:
    """The options as one. Raises ConfigError."""
    given = {"quantize": quantize.value, "base_url": base_url}
    if prompt is not None:
        given["prompt"] = prompt
    return validate(AdapterOptions, given, "the options")
