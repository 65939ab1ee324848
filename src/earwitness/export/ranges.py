"""The ranges of a convolutional encoder's activations, which its int8 graph needs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from earwitness.audio import AudioSource
from earwitness.encoders.cnn import CNNConfig
from earwitness.errors import ConfigError
from earwitness.export.arithmetic import Range
from earwitness.export.encoder import chunk_graph
from earwitness.export.graph import Graph
from earwitness.runtime.sessions import Sessions, computed
from earwitness.runtime.weights import WeightFile

_SHARE = 0.95
"""the share of sounds that must fit into a range entirely; outliers would make it too coarse"""

FEWEST = 16
"""the fewest sounds that give reliable ranges"""


MOST = 256
"""the most sounds that are used"""


def spread(sounds: Sequence[AudioSource]) -> list[AudioSource]:
    """At most 256 of `sounds`, evenly spaced."""
    places = np.linspace(0, len(sounds) - 1, min(MOST, len(sounds)))
    return [sounds[round(place)] for place in places]


def measured_ranges(
    config: CNNConfig, file: str, path: Path, sounds: Sequence[Float[np.ndarray, " _"]]
) -> list[Range]:
    """The ranges of the activations in `Floats.seen`, in its order, over the first 10 s of each of
    `sounds` (mono, at the encoder's rate). In the graph, the weight file at `path` is called
    `file`.

    Raises:
        ConfigError: there are fewer than 16 sounds.
    """
    if len(sounds) < FEWEST:
        raise ConfigError(
            f"expected at least {FEWEST} sounds to calibrate int8 on, got {len(sounds)}"
        )
    graph = Graph("ranges", {file: WeightFile(path)})
    seen = [
        graph.output(value, f"seen_{number}", ["clips", "channels", "frames", "bands"])
        for number, value in enumerate(chunk_graph(graph, config, file))
    ]
    session = Sessions({file: path}).of(graph.model().SerializeToString(), Path("ranges"))
    least: list[list[float]] = []
    most: list[list[float]] = []
    longest = config.chunk_frames * config.log_mel.hop_samples
    for sound in sounds:
        missing = max(0, config.log_mel.n_fft - len(sound))
        waveform = np.pad(sound[:longest], (0, missing))[None].astype(np.float32)
        found = computed(session, seen, {"waveform": waveform})
        least.append([float(one.min()) for one in found])
        most.append([float(one.max()) for one in found])
    low, high = np.quantile(least, 1 - _SHARE, axis=0), np.quantile(most, _SHARE, axis=0)
    return [Range(min(float(a), 0.0), max(float(b), 0.0)) for a, b in zip(low, high, strict=True)]
