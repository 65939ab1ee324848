"""What a service accepts, and how much of it at a time."""

from pathlib import Path
from typing import Annotated

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from earwitness.caption import Precision
from earwitness.errors import ConfigError


def _listed(value: object) -> object:
    """Names from the environment, separated by commas."""
    if not isinstance(value, str):
        return value
    return tuple(name.strip() for name in value.split(",") if name.strip())


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)]


class Settings(BaseSettings):
    """Limits and switches of `create_app`; the defaults suit a machine with two cores.

    What is not given comes from the environment, for example `EARWITNESS_MAX_BEAMS=4`.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix="EARWITNESS_")

    max_bytes: PositiveInt = 200_000_000
    """largest upload"""
    max_seconds: PositiveFloat = 3600.0
    """longest sound"""
    max_window_seconds: PositiveFloat = 60.0
    """longest stretch that a request may have captioned as a whole: memory grows with it"""
    max_windows: PositiveInt = 4000
    """most windows that a request may cut a sound into"""
    max_beams: PositiveInt = 16
    """most beams, and most captions of a sound"""
    max_requests: PositiveInt = 64
    """requests that are received, waiting or being captioned; beyond it the answer is 429"""
    max_streams: PositiveInt = 8
    """live streams at a time, among the requests"""
    max_connections: PositiveInt = 512
    """open connections; fewer if the process may not open that many files"""
    timeout_seconds: PositiveFloat = 300.0
    """time for an upload to arrive, and again for its captions"""
    precision: Precision = "fp32"
    """number format of the model's arithmetic"""
    batch_size: PositiveInt = 8
    """windows, from any requests, that go through the model together"""
    batch_wait_ms: NonNegativeFloat = 5.0
    """how long an idle model waits for more windows to join the first"""
    decoder_threads: PositiveInt = 4
    """sounds that are decoded at the same time"""
    silence_db: float = -60.0
    """silence threshold: the level of the loudest 0.1 s, in dBFS"""
    allowed_hosts: Names = ("localhost", "127.0.0.1", "::1")
    """names, or `*.example.org`, under which the service answers; `*` for any"""
    any_address: bool = False
    """whether it also answers to any IP address instead of a name"""
    api_keys: Names = Field(default=(), repr=False)
    """a request needs one of them as a bearer token; none: no key is required"""
    aliases: Names = ("whisper-1",)
    """further names of the model, for tools with a fixed model name"""
    cors_origins: Names = ()
    """websites whose scripts may call the service, as `https://sounds.example.org`; `*` for any"""
    root_path: str = ""
    """path under which a proxy serves this, as `/sounds`"""
    jobs: Path | None = None
    """folder in which jobs and their sounds are kept; None: no jobs"""
    job_max_bytes: PositiveInt = 4_000_000_000
    """largest upload of a job"""
    job_max_seconds: PositiveFloat = 86_400.0
    """longest sound of a job"""
    job_days: PositiveFloat = 7.0
    """days for which a job that has ended is kept"""
    max_jobs: PositiveInt = 1000
    """jobs that wait; beyond it the answer is 429"""
    webhook_secret: str = Field(default="", repr=False)
    """key of the signatures of webhooks"""
    webhook_hosts: Names = ()
    """names, or `*.example.org`, of the hosts to which a job may report; none: no webhooks"""
    webhook_waits: tuple[NonNegativeFloat, ...] = (2.0, 20.0, 200.0)
    """seconds before each retry of a webhook that did not answer"""
    demo: bool = True
    """whether the web page is served"""
    demo_max_seconds: PositiveFloat = 900.0
    """longest sound on the web page, which draws all of it"""


def settings_from(**given: object) -> Settings:
    """The settings that are `given`, the others from the environment. Raises ConfigError."""
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])).upper()
        got = first.get("input")
        raise ConfigError(f"EARWITNESS_{name}: {first['msg'].lower()}, got {got!r}") from None
