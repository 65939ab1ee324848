"""The frozen YAMNet teacher (Apache-2.0) that the pocket encoder is distilled from; its weights do
not ship.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from earwitness.errors import DataError, MissingDependencyError, pip_install

WINDOW_SAMPLES = 15600
"""samples of one teacher patch at 16 kHz (0.975 s)"""
HOP_SAMPLES = 7680
"""samples between patches: 0.48 s, three frames of the encoder"""
N_SCORES = 521
N_EMBEDDING = 1024
MAP_SHAPE = (6, 4, 512)
"""160 ms spans, bands of 16 mels, and channels of the teacher's middle layer in one patch"""


class TeacherOutput(NamedTuple):
    """What YAMNet hears in K patches: class probabilities, the embedding before them, and the maps
    of its twelfth layer, the last at 160 ms and 16 mels per position.
    """

    scores: Float[np.ndarray, "K 521"]
    embedding: Float[np.ndarray, "K 1024"]
    maps: Float[np.ndarray, "K 6 4 512"]


class Yamnet:
    """YAMNet as TensorFlow Lite through ai-edge-litert, on one thread."""

    def __init__(self, folder: Path) -> None:
        """Loads the TFLite file `yamnet_waveform_in_*.tflite` of `folder`.

        Raises:
            DataError: there is none. MissingDependencyError: ai-edge-litert is not installed.
        """
        import warnings

        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            raise MissingDependencyError(
                f"the YAMNet teacher needs ai-edge-litert: {pip_install('pocket')}"
            ) from None
        files = sorted(folder.glob("yamnet_waveform_in_*.tflite"))
        if not files:
            raise DataError(f"{folder}: no yamnet_waveform_in_*.tflite there")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._net = Interpreter(
                str(files[0]), experimental_preserve_all_tensors=True, num_threads=1
            )
        self._net.allocate_tensors()
        self._input = self._net.get_input_details()[0]["index"]
        self._scores = self._net.get_output_details()[0]["index"]
        self._embedding = self._layer("global_average_pooling2d/Mean")
        self._maps = self._layer("layer12/pointwise_conv/Conv2D")

    def __call__(self, waveform: Float[np.ndarray, " T"]) -> TeacherOutput:
        """Outputs for all whole patches of a 16 kHz waveform; a shorter clip is padded to one
        patch.
        """
        if len(waveform) < WINDOW_SAMPLES:
            waveform = np.pad(waveform, (0, WINDOW_SAMPLES - len(waveform)))
        scores, embeddings, maps = [], [], []
        for start in range(0, len(waveform) - WINDOW_SAMPLES + 1, HOP_SAMPLES):
            patch = waveform[start : start + WINDOW_SAMPLES]
            self._net.set_tensor(self._input, np.ascontiguousarray(patch, np.float32))
            self._net.invoke()
            scores.append(self._net.get_tensor(self._scores)[0].copy())
            embeddings.append(self._net.get_tensor(self._embedding)[0].copy())
            maps.append(self._net.get_tensor(self._maps)[0].copy())
        return TeacherOutput(np.stack(scores), np.stack(embeddings), np.stack(maps))

    def _layer(self, name: str) -> int:
        """Index of the activations whose name ends so."""
        return next(
            d["index"]
            for d in self._net.get_tensor_details()
            if d["name"].endswith(name) and d["dtype"] is np.float32
        )
