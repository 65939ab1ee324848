"""Sound and video files with tracks, start times and holes, written by PyAV for the tests."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.stream import Disposition


@dataclass
class Track:
    """A sound track: samples [T] or [T, channels]; `start` and `hole` (at, length) in seconds."""

    samples: np.ndarray
    rate: int = 48000
    codec: str = "pcm_s16le"
    start: float = 0.0
    hole: tuple[float, float] | None = None
    language: str | None = None
    default: bool = False
    layout: str | None = None


def mux(
    path: Path,
    *tracks: Track,
    video: float = 0.0,
    format: str | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """The tracks in one file, with `video` seconds of black pictures where that is not 0."""
    with av.open(path, "w", format=format, options=options or {}) as container:
        packets = []
        if video:
            packets.append(_pictures(container, video))
        packets += [_sound(container, track) for track in tracks]
        # The muxer interleaves; it wants the packets of all tracks in the order of time.
        encoded = [packet for encoder in packets for packet in encoder]
        for packet in sorted(encoded, key=lambda p: float((p.dts or 0) * p.time_base)):
            container.mux(packet)
    return path


def _pictures(container: OutputContainer, seconds: float) -> list[av.Packet]:
    stream = container.add_stream("mpeg4", rate=10)
    stream.width = stream.height = 32
    stream.pix_fmt = "yuv420p"
    packets = []
    for number in range(round(seconds * 10)):
        frame = av.VideoFrame(32, 32, "yuv420p")
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.pts, frame.time_base = number, Fraction(1, 10)
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def _sound(container: OutputContainer, track: Track) -> list[av.Packet]:
    samples = track.samples if track.samples.ndim == 2 else track.samples[:, None]
    layout = track.layout or {1: "mono", 2: "stereo"}[samples.shape[1]]
    stream = container.add_stream(track.codec, rate=track.rate, layout=layout)
    if track.language:
        stream.metadata["language"] = track.language
    if track.default:
        stream.disposition = Disposition.default
    assert isinstance(stream, AudioStream)
    context = stream.codec_context
    context.bit_rate = 128_000
    context.open()
    size = context.frame_size or 1024
    resampler = av.AudioResampler(context.format.name, layout, track.rate)
    packets = []
    for start in range(0, len(samples), size):
        part = np.ascontiguousarray(samples[start : start + size].T, dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(part, "fltp", layout)
        frame.sample_rate, frame.time_base = track.rate, Fraction(1, track.rate)
        late = track.start
        if track.hole and start >= track.hole[0] * track.rate:
            late += track.hole[1]
        frame.pts = start + round(late * track.rate)
        for piece in resampler.resample(frame):
            packets += context.encode(piece)
    packets += context.encode(None)
    for packet in packets:
        packet.stream = stream
    return packets
