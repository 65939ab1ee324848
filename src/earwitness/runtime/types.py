"""Provisional: replaced by the shared types."""

from dataclasses import asdict, dataclass
from typing import Any

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from earwitness.config import Strict


@dataclass(frozen=True)
class Caption:
    text: str
    score: float
    start_s: float
    end_s: float
    model: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Decoding(Strict):
    """How a caption is searched for. LAMB gives no settings; beam 4 is its predecessors'."""

    beam_size: PositiveInt = 4
    max_new_tokens: PositiveInt = 50
    n_best: PositiveInt = 1
    length_penalty: float = 1.0
    repetition_penalty: PositiveFloat = 1.0
    no_repeat_ngram: NonNegativeInt = 0
    repeat_content_words: bool = True
    """False: a word of `content_ids` is not said twice in a caption"""
    sample: bool = False
    temperature: PositiveFloat = 1.0
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    guide_strength: NonNegativeFloat = 1.0
    """multiplies beta; 0 switches the Token Guide off"""
    seed: NonNegativeInt = 0
