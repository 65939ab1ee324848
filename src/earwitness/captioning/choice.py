"""Which model captions, and how: the same for every engine, and sent to other machines."""

from dataclasses import dataclass, replace
from hashlib import blake2b

from earwitness.adapters.settings import AdapterOptions
from earwitness.captioning.captioner import (
    Captioner,
    Precision,
    captioner_files,
    open_captioner,
    scheme_of,
)
from earwitness.captioning.options import CaptionOptions
from earwitness.captioning.pipeline import CaptionSettings, settings_for
from earwitness.captioning.rerank import Reranker, reranker_files
from earwitness.captioning.segments import Windows

DEFAULTS = CaptionOptions.model_validate({})
"""everything left to the model and the engine"""


@dataclass(frozen=True)
class ModelChoice:
    """A model by name, its caption options, and what it runs on."""

    name: str
    options: CaptionOptions = DEFAULTS
    device: str = "auto"
    precision: Precision = "fp32"
    batch_size: int | None = None
    adapter: AdapterOptions = AdapterOptions()

    def fingerprint(self, timed: bool) -> str:
        """Eight hex digits that identify everything a caption depends on besides the sound.

        Raises:
            CheckpointError: there is no such model, or no such CLAP to rerank by.
            ConfigError: the lengths of window, hop and whole are inconsistent.
        """
        options = self.options
        timed = timed or options.implies_times
        windows = Windows(*options.lengths(timed))
        # A minimum score of 0 differs from None, which leaves the choice to the model.
        asked: tuple[object, ...] = (
            (windows, timed, options.silence, self.precision, options.min_score),
            sorted(options.search_changes().items()),
            (options.rerank, options.rerank_weight),
            options.track,
        )
        if scheme_of(self.name)[0]:
            asked += ((self.name, self.adapter),)
        digest = blake2b(repr(asked).encode(), digest_size=4)
        paths = captioner_files(self.name)
        paths += reranker_files(options.rerank) if options.rerank is not None else []
        for path in paths:
            if path.is_file():
                digest.update(path.read_bytes())
        return digest.hexdigest()

    def load(self, timed: bool) -> tuple[Captioner, CaptionSettings]:
        """The captioner, and the settings completed with its defaults.

        Raises:
            CheckpointError: a model folder is missing or damaged.
            ConfigError: this machine has no such device, or a value is out of range.
        """
        captioner = open_captioner(self.name, self.device, self.adapter)
        reranker = load_reranker(self.options.rerank, self.options.rerank_weight, captioner)
        settings = settings_for(self.options, captioner, timed=timed, reranker=reranker)
        return captioner, replace(settings, precision=self.precision)


def load_reranker(name: str | None, weight: float | None, captioner: Captioner) -> Reranker | None:
    """The reranker called `name` on the captioner's device; None if `name` is None."""
    return None if name in (None, "none") else Reranker.load(name, weight, str(captioner.device))
