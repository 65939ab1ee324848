"""Sound files of many kinds, damaged in many ways: each is captioned, or refused in a sentence."""

import io
import random
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np

from earwitness import audio
from earwitness.captioning.captioner import Captioner
from earwitness_lab.hostile.campaign import Attempt, Outcome, Section, together
from earwitness_lab.hostile.folders import noise
from earwitness_lab.hostile.jobs import tiny_model

_RATE = 16_000
_SNDFILE = ("WAV", "RF64", "AIFF", "AU", "CAF", "W64", "FLAC", "OGG", "MP3")
_MUXED = {
    **{"mp4": "aac", "matroska": "flac", "mpegts": "mp2", "ogg": "libopus", "avi": "pcm_s16le"},
    **{"adts": "aac", "ac3": "ac3", "asf": "wmav2", "mov": "pcm_s16le"},
}
_HEAD = 200


def section(place: Path, numbers: range, seed: int) -> Section:
    """The row `broken sounds`: those that can be read are captioned by a tiny model."""
    model = tiny_model(place)
    return together("broken sounds", _attempts(model, numbers, seed))


def _attempts(model: str, numbers: range, seed: int) -> Iterator[Attempt]:
    good = files()
    names = list(good)
    for number in numbers:
        rng = random.Random(seed * 1_000_003 + number)
        name = names[number % len(names)]
        how, contents = damaged(rng, good[name], good[rng.choice(names)])
        yield Attempt(f"{name} {number}: {how}", lambda c=contents: captioned(model, c))


def captioned(model: str, contents: bytes) -> Outcome:
    """ "captioned" if the sound has finite samples and a caption, else "lost"."""
    samples = audio.load(contents, _RATE, max_seconds=120)
    if not len(samples) or not np.isfinite(samples).all():
        return "lost"
    caption = _captioner(model).caption((samples[:_RATE], _RATE))
    return "captioned" if caption.text or caption.score >= 0 else "lost"


@cache
def _captioner(model: str) -> Captioner:
    return Captioner.load(model)


def files() -> dict[str, bytes]:
    """A second of noise in each kind of file."""
    import soundfile

    found = {}
    for kind in _SNDFILE:
        target = io.BytesIO()
        soundfile.write(target, noise(), _RATE, format=kind)
        found[kind] = target.getvalue()
    return found | {kind: _muxed(kind, codec) for kind, codec in _MUXED.items()}


def _muxed(kind: str, codec: str) -> bytes:
    import av

    target = io.BytesIO()
    with av.open(target, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=48_000, layout="mono")
        assert isinstance(stream, av.AudioStream)
        context = stream.codec_context
        context.bit_rate = 128_000
        context.open()
        size = context.frame_size or 1024
        resampler = av.AudioResampler(context.format.name, "mono", 48_000)
        samples = noise(1.0, 48_000)
        for start in range(0, len(samples) - size, size):
            part = samples[None, start : start + size]
            frame = av.AudioFrame.from_ndarray(part, "fltp", "mono")
            frame.sample_rate, frame.time_base, frame.pts = 48_000, Fraction(1, 48_000), start
            for piece in resampler.resample(frame):
                container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return target.getvalue()


def damaged(rng: random.Random, contents: bytes, other: bytes) -> tuple[str, bytes]:
    """What was done to a file, and the file."""
    way = rng.choice(("bytes", "head", "cut", "zeros", "insert", "drop", "join", "swap", "random"))
    raw = bytearray(contents)
    if way in ("bytes", "head"):
        for _ in range(rng.randint(1, 12)):
            raw[rng.randrange(min(len(raw), _HEAD) if way == "head" else len(raw))] = rng.choice(
                (0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256))
            )
    at = rng.randrange(len(raw))
    count = rng.randint(1, 2000)
    if way == "cut":
        del raw[at:]
    elif way == "zeros":
        raw[at : at + count] = bytes(len(raw[at : at + count]))
    elif way == "insert":
        raw[at:at] = rng.randbytes(count)
    elif way == "drop":
        del raw[at : at + count]
    elif way == "join":
        raw += other
    elif way == "swap":
        raw[at:] = other[at:]
    elif way == "random":
        raw[rng.randint(4, 64) :] = rng.randbytes(count)
    return way, bytes(raw)
