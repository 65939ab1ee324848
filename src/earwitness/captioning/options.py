"""Caption options, defined once for the command line, the HTTP service and the web page."""

from typing import Any, NamedTuple

from pydantic import Field, FiniteFloat, PositiveInt

from earwitness.config import Strict
from earwitness.decoding import GuideStrength, Seed, Temperature, TopP

WINDOW_SECONDS = 10.0
_WHOLE_SECONDS = 30.0
_SAMPLING = ("temperature", "top_p", "seed")


class Conflict(NamedTuple):
    """An option that needs or excludes another one."""

    option: str
    other: str
    excludes: bool


class CaptionOptions(Strict):
    """How sounds are cut, how captions are decoded, and which one is chosen.

    None leaves a choice to the model; for `silence`, to the command or the service.
    """

    beam: PositiveInt | None = Field(None, description="Beam size. Default: the model's own.")
    n_best: PositiveInt | None = Field(None, description="Captions per sound, best first.")
    sample: bool = Field(False, description="Sample captions instead of searching for the best.")
    temperature: Temperature | None = Field(
        None, description="Sampling temperature; above 1 is more varied. Only with sampling."
    )
    top_p: TopP | None = Field(
        None, description="Nucleus sampling: cumulative probability, 0 to 1. Only with sampling."
    )
    seed: Seed | None = Field(None, description="Seed for sampling.")
    guide_strength: GuideStrength | None = Field(
        None, description="Multiplies the Token Guide; 0 turns it off."
    )
    rerank: str | None = Field(
        None,
        description="Rerank the n-best with a CLAP (pocket-link, or a folder), by 'consensus', or "
        "not at all ('none'). Default: by the sounds that the model's class "
        "head hears, if it has one. The service accepts the CLAPs it has loaded.",
    )
    rerank_weight: FiniteFloat | None = Field(
        None,
        ge=0,
        le=1,
        description="Weight of the second score in reranking; 1 ignores the captioner's own. "
        "Default: 0.5, or 1 for consensus.",
    )
    min_score: FiniteFloat | None = Field(
        None,
        ge=0,
        le=1,
        description="Captions below this score become 'no distinct sound'; 0 keeps all. Default: "
        "the model's own.",
    )
    silence: FiniteFloat | None = Field(
        None,
        description="A window whose loudest 0.1 s is below this level (dBFS) is silence.",
    )
    timed: bool = Field(
        False, description="Give times for short sounds, too; srt and vtt imply it."
    )
    window: FiniteFloat | None = Field(
        None, description="Window length in seconds (default: 10); implies timed."
    )
    hop: FiniteFloat | None = Field(
        None,
        description="Seconds from one window to the next; default: the window length (no overlap).",
    )
    whole: FiniteFloat | None = Field(
        None,
        description="Caption sounds of up to this many seconds as a whole; default: 30, or 1.5 "
        "windows if timed.",
    )

    track: str | None = Field(
        None,
        min_length=1,
        description="Audio track of a file with several, by its number from 1 or its language "
        "(eng). Default: the file's default track.",
    )

    def conflict(self) -> Conflict | None:
        """The first pair of options that cannot be combined, or None."""
        for name in _SAMPLING:
            if getattr(self, name) is not None and not self.sample:
                return Conflict(name, "sample", excludes=False)
        if self.sample and self.beam is not None:
            return Conflict("beam", "sample", excludes=True)
        if self.rerank_weight is not None and not self.rerank:
            return Conflict("rerank_weight", "rerank", excludes=False)
        return None

    @property
    def implies_times(self) -> bool:
        """Whether results hold segments even for a sound of one window."""
        return self.timed or self.window is not None or self.hop is not None

    def lengths(self, timed: bool, longest: float | None = None) -> tuple[float, float, float]:
        """Window, hop and whole in seconds, defaults filled in; defaults are at most `longest`."""
        window = WINDOW_SECONDS if self.window is None else self.window
        whole = self.whole
        if whole is None:
            whole = 1.5 * window if timed else max(_WHOLE_SECONDS, window)
            whole = whole if longest is None else max(window, min(whole, longest))
        return window, window if self.hop is None else self.hop, whole

    def search_changes(self) -> dict[str, Any]:
        """The fields of the model's own `Decoding` that these options override."""
        names = ("n_best", *_SAMPLING, "guide_strength")
        changes = {"beam_size": self.beam, "sample": self.sample or None}
        changes |= {name: getattr(self, name) for name in names}
        return {name: value for name, value in changes.items() if value is not None}


def option_help(name: str) -> str:
    """The description of an option."""
    return CaptionOptions.model_fields[name].description or ""
