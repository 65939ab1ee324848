"""The CLAP front end against transformers' extractor, and the windows over a file."""

from typing import Any

import pytest
import torch
from tiny_clap import HUB_SETTINGS, RATE, WINDOW, sound
from torch import Tensor

from earwitness.encoders.clap_features import ClapFeatures, ClapFeatureSettings, window_starts


def reference_mel(waveform: Tensor, **settings: Any) -> Tensor:
    from transformers import ClapFeatureExtractor

    extractor = ClapFeatureExtractor(**{**HUB_SETTINGS, **settings})
    rate = extractor.sampling_rate
    out = extractor(waveform.numpy(), sampling_rate=rate, return_tensors="pt")
    return out["input_features"][0, 0].float()


def our_mel(waveform: Tensor, **settings: Any) -> Tensor:
    from transformers import ClapFeatureExtractor

    extractor = ClapFeatureExtractor(**{**HUB_SETTINGS, **settings})
    features = ClapFeatures(ClapFeatureSettings.of(extractor, "test"))
    return features(features.window(waveform, 0)[None])[0]


@pytest.mark.parametrize("padding", ["repeatpad", "repeat", "pad"])
@pytest.mark.parametrize("samples", [1, 700, 131_072, 240_000, 479_999, 480_000])
def test_front_end_equals_the_extractor(samples: int, padding: str) -> None:
    waveform = sound(samples)
    ours, reference = our_mel(waveform, padding=padding), reference_mel(waveform, padding=padding)
    assert ours.shape == (1001, 64)
    assert (ours - reference).abs().max().item() < 1e-4


@pytest.mark.parametrize(
    "settings",
    [
        {"truncation": "fusion", "frequency_min": 0},
        {
            "sampling_rate": 16_000,
            "hop_length": 160,
            "fft_window_size": 512,
            "frequency_max": 7_000,
        },
        {"max_length_s": 5, "frequency_max": 20_000},
    ],
)
def test_front_end_equals_the_extractor_with_other_settings(settings: dict[str, Any]) -> None:
    waveform = sound(60_000)
    ours, reference = our_mel(waveform, **settings), reference_mel(waveform, **settings)
    assert ours.shape == reference.shape
    assert (ours - reference).abs().max().item() < 1e-4


def test_front_end_equals_the_extractor_on_a_pure_tone_and_on_silence() -> None:
    tone = 0.9 * torch.sin(2 * torch.pi * 1000 * torch.arange(WINDOW) / RATE)
    for waveform in (tone, torch.zeros(WINDOW)):
        assert (our_mel(waveform) - reference_mel(waveform)).abs().max().item() < 1e-4


def test_front_end_defaults_are_the_hub_folder_s() -> None:
    from transformers import ClapFeatureExtractor

    hub = ClapFeatureSettings.of(ClapFeatureExtractor(**HUB_SETTINGS), "test")
    assert hub == ClapFeatureSettings()


@pytest.mark.parametrize(
    ("samples", "starts"),
    [(1, [0]), (10, [0]), (11, [0, 1]), (20, [0, 10]), (25, [0, 10, 15]), (30, [0, 10, 20])],
)
def test_windows_cover_the_clip_and_end_with_it(samples: int, starts: list[int]) -> None:
    assert window_starts(samples, window=10, stride=10) == starts


def test_overlapping_windows_follow_the_stride() -> None:
    assert window_starts(26, window=10, stride=5) == [0, 5, 10, 15, 16]
