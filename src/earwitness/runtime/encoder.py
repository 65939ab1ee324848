"""Waveforms to the frames or embeddings of a model's encoder, in float32 or int8."""

from collections import defaultdict
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from operator import is_
from typing import Literal

import numpy as np
import onnxruntime as ort
from jaxtyping import Float

from earwitness.errors import ConfigError
from earwitness.runtime.folder import ModelFiles
from earwitness.runtime.sessions import Sessions, computed
from earwitness.runtime.settings import INT8

Kind = Literal["fp32", "int8"]


class Encoder:
    """The graph, or two, of a model's encoder; each is opened when it is first needed."""

    def __init__(self, files: ModelFiles, sessions: Sessions) -> None:
        """Raises CheckpointError if the float32 graph cannot be opened."""
        self._files, self._sessions = files, sessions
        self._opened: dict[Kind, ort.InferenceSession] = {}
        self._kept: tuple[Kind | None, list[np.ndarray], list[np.ndarray]] = (None, [], [])
        self.kind: Kind = "fp32"
        """the number format from now on"""
        self.names = [one.name for one in self._session(self.kind).get_outputs()]

    @contextmanager
    def computing(self, kind: Kind) -> Generator[None]:
        """Frames made inside are computed in this number format. Raises ConfigError if the
        folder has no such graph.
        """
        if kind == "int8" and INT8 not in self._files.runtime.graphs:
            raise ConfigError(
                f"precision int8: {self._files.name} has no int8 graph; expected fp32, or a model "
                "that was exported with --int8"
            )
        before = self.kind
        self.kind = kind
        try:
            yield
        finally:
            self.kind = before

    def frames(self, waveforms: Sequence[np.ndarray]) -> list[Float[np.ndarray, "_ D"]]:
        """The frames of each waveform, or its one embedding.

        Those of the last call are kept: the class head reuses the frames of a caption.
        """
        waveforms = list(waveforms)
        kind, kept, frames = self._kept
        if (kind, len(kept)) == (self.kind, len(waveforms)) and all(map(is_, kept, waveforms)):
            return frames
        found = self._new_frames(waveforms)
        self._kept = (self.kind, waveforms, found)
        return found

    def frames_of_wholes(self, waveforms: Sequence[np.ndarray]) -> list[Float[np.ndarray, "_ D"]]:
        """The frames below the embedding of each waveform, which is not cut into windows."""
        return self._encoded([self._at_least_a_window(one) for one in waveforms], "frames")

    def _new_frames(self, waveforms: Sequence[np.ndarray]) -> list[Float[np.ndarray, "_ D"]]:
        clips = [self._at_least_a_window(waveform) for waveform in waveforms]
        windows = self._files.runtime.windows
        if windows is None:
            return self._encoded(clips)
        places = [
            (clip, start)
            for clip, samples in enumerate(clips)
            for start in _starts(len(samples), windows.size, windows.stride)
        ]
        parts = self._encoded([clips[clip][start : start + windows.size] for clip, start in places])
        sums: dict[int, np.ndarray] = {}
        for (clip, _), e in zip(places, parts, strict=True):
            sums[clip] = sums[clip] + e if clip in sums else e
        units = (sums[clip] for clip in range(len(clips)))
        return [e / np.maximum(np.linalg.norm(e), np.float32(1e-12)) for e in units]

    def _encoded(self, clips: list[np.ndarray], output: str = "h") -> list[np.ndarray]:
        found: list[np.ndarray] = [np.empty(0)] * len(clips)
        session = self._session(self.kind)
        for places in alike([clip.shape for clip in clips]):
            waveforms = np.stack([clips[place] for place in places])
            h = computed(session, [output], {"waveform": waveforms})[0]
            for place, frames in zip(places, h, strict=True):
                found[place] = frames
        return found

    def _at_least_a_window(self, waveform: np.ndarray) -> np.ndarray:
        missing = max(0, self._files.runtime.shortest - len(waveform))
        return np.pad(np.asarray(waveform, np.float32), (0, missing))

    def _session(self, kind: Kind) -> ort.InferenceSession:
        if kind not in self._opened:
            name = INT8 if kind == "int8" else "encoder"
            path, digest = self._files.folder / f"{name}.onnx", self._files.runtime.graphs[name]
            self._opened[kind] = self._sessions.open(path, digest, "waveform")
        return self._opened[kind]


def alike(keys: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """Positions of equal keys, grouped."""
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for place, key in enumerate(keys):
        groups[key].append(place)
    return list(groups.values())


def _starts(samples: int, window: int, stride: int) -> list[int]:
    """First samples of the windows that cover a clip: every `stride`, the last one at its end."""
    last = max(samples - window, 0)
    return [*range(0, last, stride), last]
