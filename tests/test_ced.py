"""CED against reference outputs, and its promise that a batch changes nothing."""

import pytest
import torch
from safetensors.torch import load_file

from earwitness.encoders.ced import CED, CEDConfig, ced_state
from earwitness.features import LogMel, LogMelConfig

SMALL = CEDConfig(embed_dim=48, depth=2, num_heads=3)


@pytest.fixture(scope="module")
def reference(shared_data):
    return load_file(shared_data / "parity" / "ced_reference.safetensors")


@pytest.fixture(scope="module")
def ced(reference):
    state = {k.removeprefix("state/"): v for k, v in reference.items() if k.startswith("state/")}
    model = CED(SMALL)
    model.load_state_dict(ced_state(state), strict=True)
    return model.eval()


@pytest.mark.parametrize("name", ["10s", "short"])
@torch.inference_mode()
def test_ced_tokens_equal_the_reference(ced, reference, name):
    torch.testing.assert_close(
        ced.tokens(reference[f"{name}/log_mel"]), reference[f"{name}/tokens"], atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("name", ["10s", "25s", "short"])
@torch.inference_mode()
def test_ced_scores_equal_the_reference(ced, reference, name):
    torch.testing.assert_close(
        ced.scores(reference[f"{name}/log_mel"]), reference[f"{name}/scores"], atol=1e-4, rtol=0
    )


@torch.inference_mode()
def test_ced_frames_of_a_clip_do_not_depend_on_its_batch(ced):
    lengths = torch.tensor([16000 * 12, 16000 * 3, 16000 * 25, 100])
    waveforms = torch.zeros(4, int(lengths.max()))
    for row, n in enumerate(lengths):
        waveforms[row, :n] = torch.randn(int(n), generator=torch.Generator().manual_seed(row)) * 0.1
    together = ced(waveforms, lengths)
    for row, n in enumerate(lengths):
        alone = ced(waveforms[row : row + 1, :n], lengths[row : row + 1])
        real = together.h[row][together.mask[row]]
        assert alone.mask.sum() == together.mask[row].sum()
        torch.testing.assert_close(alone.h[0][alone.mask[0]], real, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_ced_pools_frequency_within_a_chunk_before_joining_chunks(ced):
    waveform = torch.randn(1, 16000 * 15, generator=torch.Generator().manual_seed(0)) * 0.1
    frames = ced(waveform, torch.tensor([waveform.shape[1]]))
    first = ced.tokens(ced.log_mel(waveform[0])[None, :, :1012])
    by_hand = first.reshape(1, 4, 63, 48).mean(1)
    torch.testing.assert_close(frames.h[:, :63], by_hand, atol=1e-5, rtol=0)
    assert int(frames.mask.sum()) == 63 + -(-(1501 - 1012) // 16)


def test_ced_loads_the_hub_layout_as_the_original(ced):
    hub = {
        (k if k.startswith("outputlayer") else f"encoder.{k}"): v for k, v in ced.state_dict().items()
    }
    other = CED(SMALL)
    other.load_state_dict(ced_state(hub), strict=True)
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), ced.parameters(), strict=True))


def test_log_mel_floor_is_taken_per_clip():
    log_mel = LogMel(LogMelConfig())
    noise = torch.randn(16000, generator=torch.Generator().manual_seed(0))
    quiet, loud = log_mel(noise * 1e-4), log_mel(noise * 1e2)
    torch.testing.assert_close(loud - quiet, torch.full_like(loud, 120.0), atol=1e-2, rtol=0)


def test_log_mel_of_a_sine_peaks_in_its_band():
    time = torch.arange(16000) / 16000
    spectrum = LogMel(LogMelConfig())(torch.sin(2 * torch.pi * 1000 * time)).mean(1)
    mels = torch.linspace(0, 2595 * torch.log10(torch.tensor(1 + 8000 / 700)), 66)[1:-1]
    centres = 700 * (10 ** (mels / 2595) - 1)
    assert abs(centres[spectrum.argmax()] - 1000) < 40
