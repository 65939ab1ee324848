"""Decoding settings and their ranges."""

from typing import Annotated

from pydantic import Field, FiniteFloat, NonNegativeInt, PositiveFloat, PositiveInt

from earwitness.config import Strict

Temperature = Annotated[FiniteFloat, Field(ge=0.01, le=100)]
"""any lower and logits overflow; any higher and all tokens are equally likely"""
TopP = Annotated[FiniteFloat, Field(gt=0, le=1)]
GuideStrength = Annotated[FiniteFloat, Field(ge=0, le=1000)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
"""the range that both torch and NumPy accept"""


class Decoding(Strict):
    """How a caption is decoded. LAMB gives no settings; its predecessors use 4 beams."""

    beam_size: PositiveInt = 4
    max_new_tokens: PositiveInt = 50
    n_best: PositiveInt = 1
    length_penalty: FiniteFloat = 1.0
    repetition_penalty: Annotated[PositiveFloat, Field(allow_inf_nan=False)] = 1.0
    no_repeat_ngram: NonNegativeInt = 0
    repeat_content_words: bool = True
    """False: no content word occurs twice in a caption"""
    sample: bool = False
    temperature: Temperature = 1.0
    top_p: TopP = 1.0
    guide_strength: GuideStrength = 1.0
    """multiplies beta; 0 turns the Token Guide off"""
    seed: Seed = 0

    @property
    def batches(self) -> bool:
        """Whether clips may be captioned together.

        Each batch starts from the seed: clips sampled together would share its random numbers.
        """
        return not self.sample
