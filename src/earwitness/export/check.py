"""Checks that the ONNX graphs in a folder give the same captions as the original model."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from earwitness import audio
from earwitness.caption import CaptionsWaveforms
from earwitness.errors import ConfigError, one_line

NEARLY = 1e-3
"""captions whose log scores differ by less than this count as equally likely"""

_SECONDS = (0.4, 2.0, 5.0, 10.0, 12.5)


class Compared(NamedTuple):
    """How many sounds got the same caption, and the largest score difference among them."""

    sounds: int
    same: int
    furthest: float


def check_sounds(files: Sequence[Path], rate: int) -> list[Float[np.ndarray, " _"]]:
    """The sounds to compare captions on: `files`, or if there are none, noise, tones and clicks of
    different lengths. Raises AudioError.
    """
    if files:
        return [audio.load(path, rate) for path in files]
    rng = np.random.default_rng(0)
    sounds: list[np.ndarray] = []
    for seconds in _SECONDS:
        times = np.arange(round(seconds * rate)) / rate
        noise = rng.standard_normal(len(times)) * (0.5 + 0.5 * np.sin(2 * np.pi * 0.4 * times))
        tone = np.sin(2 * np.pi * (300 + 900 * times / seconds) * times)
        clicks = np.exp(-40 * (times % 0.7)) * rng.standard_normal(len(times))
        sounds += [0.1 * noise, 0.3 * tone, 0.5 * clicks, 0.05 * noise + 0.2 * tone]
    return [sound.astype(np.float32) for sound in sounds]


def compare(
    first: CaptionsWaveforms, second: CaptionsWaveforms, sounds: Sequence[Float[np.ndarray, " _"]]
) -> Compared:
    """The captions of two captioners, sound by sound.

    Raises:
        ConfigError: captions differ and are not equally likely; or `second`, which has the graphs,
            cannot compute one.
    """
    same, furthest = 0, 0.0
    for number, sound in enumerate(sounds):
        ours = first.caption_waveforms([sound])[0][0]
        try:
            theirs = second.caption_waveforms([sound])[0][0]
        except Exception as error:  # onnxruntime's exceptions have no common base of their own
            raise ConfigError(
                f"onnxruntime cannot compute the graphs of this model on sound {number + 1} of the "
                f"check ({one_line(error)[:200]}); convolutions of fewer than 16 channels are one "
                "known cause"
            ) from None
        apart = abs(ours.score - theirs.score)
        if ours.text == theirs.text:
            same, furthest = same + 1, max(furthest, apart)
        elif abs(math.log(ours.score / theirs.score)) > NEARLY:
            raise ConfigError(
                f"sound {number + 1} of the check is {ours.text!r} (score {ours.score:.4f}) for "
                f"the model but {theirs.text!r} ({theirs.score:.4f}) for its ONNX graphs; expected "
                "the same caption (float32 weights, --dtype float32, are the most exact)"
            )
    return Compared(len(sounds), same, furthest)


def agreeing(
    first: CaptionsWaveforms, second: CaptionsWaveforms, sounds: Sequence[Float[np.ndarray, " _"]]
) -> int:
    """How many sounds get the same caption from both."""
    texts = [[one.caption_waveforms([s])[0][0].text for s in sounds] for one in (first, second)]
    return sum(a == b for a, b in zip(*texts, strict=True))
