"""The audio encoder protocols: frames (LAMB) or one embedding per clip (Diffusion-Link)."""

from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor


class Frames(NamedTuple):
    """Time-ordered audio tokens `h_a`, and a mask that is True for real tokens."""

    h: Float[Tensor, "B N D"]
    mask: Bool[Tensor, "B N"]


@runtime_checkable
class FrameEncoder(Protocol):
    """Waveforms to frames. `dim` is D, `sample_rate` in Hz."""

    dim: int
    sample_rate: int

    def __call__(self, waveforms: Float[Tensor, "B T"], lengths: Int[Tensor, " B"]) -> Frames:
        """Frames of `waveforms`, zero-padded clips whose real lengths in samples are `lengths`."""
        ...


@runtime_checkable
class EmbeddingEncoder(Protocol):
    """Waveforms and texts to unit vectors in one shared space (CLAP). `dim` is C."""

    dim: int
    sample_rate: int

    def embed_audio(self, waveforms: list[Float[Tensor, " _"]]) -> Float[Tensor, "B C"]:
        """Unit-norm embeddings of clips of any length, each a 1-D float tensor."""
        ...

    def embed_text(self, texts: list[str]) -> Float[Tensor, "B C"]:
        """Unit-norm embeddings of sentences."""
        ...
