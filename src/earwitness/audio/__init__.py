"""Sound from any source as mono float32 samples at one rate."""

from earwitness.audio.loading import (
    DEFAULT_MAX_BYTES,
    DEFAULT_MAX_SECONDS,
    AudioSource,
    Readable,
    duration,
    load,
    stream,
)

__all__ = [
    "DEFAULT_MAX_BYTES",
    "DEFAULT_MAX_SECONDS",
    "AudioSource",
    "Readable",
    "duration",
    "load",
    "stream",
]
