"""The settings of a captioner, and how `earwitness.json` holds them.

Format 2 of a model folder holds the settings of the parts that the model has, and no others.
Format 1 held those of every kind of prefix and bridge; it is still read.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, PositiveFloat

from earwitness.config import Strict
from earwitness.errors import CheckpointError
from earwitness.io.kinds import is_object
from earwitness.lamb.aligner import AlignerConfig
from earwitness.lamb.baselines import LinearPrefixConfig, QFormerConfig
from earwitness.lamb.token_guide import TokenGuideConfig
from earwitness.lamb.two_stream import TwoStreamConfig
from earwitness.link.choice import flat_bridge
from earwitness.link.prefix import LinkPrefixConfig
from earwitness.models.weights import read_settings
from earwitness.system.decoder import DecoderConfig, Decoding

FORMAT = 2
"""version of the model folders that are written"""

_READABLE = (1, 2)

AnyPrefixConfig: TypeAlias = Annotated[
    TwoStreamConfig | QFormerConfig | LinearPrefixConfig | LinkPrefixConfig,
    Field(discriminator="kind"),
]
"""settings of one prefix, selected by `kind`; the list of all kinds"""

_OFF = BeforeValidator(lambda value: None if value == "off" else value)
"""TOML has no null"""


class CaptionerConfig(Strict):
    """Everything but the weights. `guide = "off"` and `aligner = "off"` leave that part out."""

    prefix: AnyPrefixConfig = TwoStreamConfig()
    decoder: DecoderConfig = DecoderConfig()
    guide: Annotated[TokenGuideConfig | None, _OFF] = TokenGuideConfig()
    aligner: Annotated[AlignerConfig | None, _OFF] = AlignerConfig()
    decoding: Decoding = Decoding()
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    """in training only; none in LAMB's predecessors"""
    max_seconds: PositiveFloat = 3600.0
    """the longest clip that is captioned as a whole"""

    @property
    def system(self) -> Literal["lamb", "diffusion-link"]:
        """The paper whose system this is, as a model folder names it."""
        return "diffusion-link" if self.prefix.kind == "link" else "lamb"


def written(config: CaptionerConfig) -> dict[str, Any]:
    """`config` as `earwitness.json` holds it: without the parts that the model does not have."""
    settings = config.model_dump(mode="json")
    for part in ("guide", "aligner"):
        if settings[part] is None:
            del settings[part]
    if config.decoder.tune != "lora":
        del settings["decoder"]["lora"]
    return settings


def read_config(settings: dict[str, Any], source: Path) -> CaptionerConfig:
    """The settings of the captioner in `settings`, the contents of the `earwitness.json` at
    `source`.

    Raises:
        CheckpointError: another format, another system, or inconsistent settings.
    """
    version = settings.get("format")
    if type(version) is not int or version not in _READABLE:
        raise CheckpointError(
            f"{source.parent}: model format {version!r}; this version of earwitness reads formats "
            f"{', '.join(map(str, _READABLE))}"
        )
    found = settings.get("config")
    if is_object(found):
        found = _from_format_1(found) if version == 1 else found
        found = {"guide": "off", "aligner": "off", **found}
    config = read_settings(CaptionerConfig, found, source)
    if settings.get("system") != config.system:
        raise CheckpointError(
            f"{source.parent}: holds a {settings.get('system')!r} system; expected "
            f"{config.system!r} with the prefix {config.prefix.kind!r}"
        )
    return config


def _from_format_1(config: dict[str, Any]) -> dict[str, Any]:
    """Format 1 had a section per kind of prefix and of bridge; only the chosen one is kept."""
    prefix = config.get("prefix")
    kind = prefix.get("kind") if is_object(prefix) else None
    if not is_object(prefix) or not isinstance(kind, str):
        return config
    own = prefix.get(kind)
    flat = {"kind": kind, **(own if is_object(own) else {})}
    if is_object(bridge := flat.get("bridge")):
        flat["bridge"] = flat_bridge(bridge)
    return {**config, "prefix": flat}
