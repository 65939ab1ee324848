"""Settings of an adapter besides the name of its model."""

from typing import Literal

from pydantic import Field

from earwitness.config import Strict

PROMPT = (
    "Describe the sounds in this recording in one short English sentence, as a caption for "
    "someone who cannot hear it. Name what makes each sound. Do not transcribe speech, and give "
    "the sentence alone."
)
"""the prompt for instruction-following models; our own wording"""


class AdapterOptions(Strict):
    """Settings of `hf:` and `openai:` models; other models have none."""

    prompt: str = Field(default=PROMPT, min_length=1)
    quantize: Literal["none", "int8", "nf4"] = "none"
    base_url: str | None = None


def as_caption(text: str) -> str:
    """A model's answer as a caption: its first non-blank line, without surrounding quotes."""
    lines = (" ".join(line.split()) for line in text.splitlines())
    first = next((line for line in lines if line), "")
    quoted = len(first) > 1 and (first[0], first[-1]) in (('"', '"'), ("'", "'"), ("“", "”"))
    return first[1:-1].strip() if quoted else first
