"""`runtime.json` of a model folder: what captioning without torch needs besides the graphs."""

from pydantic import FiniteFloat, NonNegativeInt, PositiveInt, model_validator

from earwitness.config import Strict

FORMAT = 1
"""version of `runtime.json` and of the graphs; a newer one is refused by name"""

GRAPHS = ("encoder", "prefix", "decoder")
"""names of the graphs, each a file `NAME.onnx`"""

INT8 = "encoder_int8"
"""name of the graph that a folder may have beside them: the encoder in 8-bit integers"""


class Windows(Strict):
    """How a long clip is cut for an encoder that gives one embedding per window, in samples."""

    size: PositiveInt
    stride: PositiveInt


class RuntimeSettings(Strict):
    """Facts of an exported model. Token ids are those of `decoder/tokenizer.json`."""

    format: PositiveInt = FORMAT
    graphs: dict[str, str]
    """SHA-256 of each graph"""
    tokenizer: str
    """SHA-256 of `tokenizer.json`"""
    sample_rate: PositiveInt
    """Hz"""
    shortest: PositiveInt
    """samples; a shorter clip is padded with zeros"""
    windows: Windows | None = None
    """None: the encoder takes a clip of any length whole"""
    vocabulary: PositiveInt
    layers: PositiveInt
    key_heads: PositiveInt
    head_dim: PositiveInt
    end: NonNegativeInt
    """the end-of-sentence token"""
    before: tuple[NonNegativeInt, ...]
    """prompt in front of the audio tokens"""
    after: tuple[NonNegativeInt, ...]
    """prompt after them"""
    special: tuple[NonNegativeInt, ...]
    """tokens that are not text"""
    content: tuple[NonNegativeInt, ...]
    """tokens that are whole content words, which a caption may be forbidden to repeat"""
    guide: bool
    """whether `prefix.onnx` gives the bias of a Token Guide"""
    bridge: bool
    """whether `prefix.onnx` gives its tokens without a bridge too"""

    ranges: tuple[tuple[FiniteFloat, FiniteFloat], ...] = ()
    """smallest and largest activations that the int8 graph was written for"""

    @model_validator(mode="after")
    def _tokens_exist(self) -> "RuntimeSettings":
        lists = {"before": self.before, "after": self.after, "special": self.special}
        for key, ids in {"end": (self.end,), **lists, "content": self.content}.items():
            if ids and max(ids) >= self.vocabulary:
                raise ValueError(f"{key} names token {max(ids)} of {self.vocabulary}")
        return self
