"""The pocket encoder: frame counts, independence of the batch, chunks, and settings it refuses."""

import pytest
import torch
from pydantic import ValidationError

from earwitness.encoders.cnn import CNN, CNNConfig, pad_to_stride
from earwitness.encoders.log_mel import LogMelConfig

SMALL = CNNConfig(stem=4, channels=(8, 8, 16), blocks=(1, 0, 1), dim=24, chunk_frames=320)


@pytest.fixture(scope="module")
def cnn():
    torch.manual_seed(0)
    model = CNN(SMALL)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2.0)
    return model.eval()


def clips(lengths):
    waveforms = torch.zeros(len(lengths), max(lengths))
    for row, n in enumerate(lengths):
        waveforms[row, :n] = torch.randn(n, generator=torch.Generator().manual_seed(row)) * 0.1
    return waveforms, torch.tensor(lengths)


@torch.inference_mode()
@pytest.mark.parametrize("samples", [100, 16000, 16000 * 3, 16000 * 7 + 123])
def test_a_second_gives_six_and_a_quarter_frames(cnn, samples):
    frames = cnn(*clips([samples]))
    spectra = max(samples, 512) // 160 + 1
    assert cnn.frame_rate == 6.25
    assert frames.h.shape == (1, -(-spectra // 16), 24)
    assert frames.mask.all()


@torch.inference_mode()
def test_frames_of_a_clip_do_not_depend_on_its_batch(cnn):
    lengths = [16000 * 5, 16000, 100, 16000 * 8, 16000]
    waveforms, samples = clips(lengths)
    together = cnn(waveforms, samples)
    for row, n in enumerate(lengths):
        alone = cnn(waveforms[row : row + 1, :n], samples[row : row + 1])
        real = together.h[row][together.mask[row]]
        torch.testing.assert_close(real, alone.h[0], atol=1e-5, rtol=0)


@torch.inference_mode()
def test_what_stands_behind_the_end_of_a_clip_does_not_matter(cnn):
    waveforms, samples = clips([16000, 8000])
    clean = cnn(waveforms, samples)
    waveforms[1, 8000:] = 9.0
    dirty = cnn(waveforms, samples)
    assert torch.equal(clean.h, dirty.h)
    assert torch.equal(clean.mask, dirty.mask)


@torch.inference_mode()
def test_a_long_clip_is_its_chunks_one_after_the_other(cnn):
    waveforms, samples = clips([16000 * 8])
    log_mel = cnn.log_mel(waveforms[0])
    parts = [cnn.encode(pad_to_stride(part)[None])[0] for part in log_mel.split(320, dim=1)]
    assert len(parts) == 3
    torch.testing.assert_close(cnn(waveforms, samples).h[0], torch.cat(parts), atol=1e-5, rtol=0)


def test_pad_to_stride_appends_the_quietest_value_up_to_a_multiple_of_16():
    log_mel = torch.randn(4, 21, generator=torch.Generator().manual_seed(0))
    padded = pad_to_stride(log_mel)
    assert padded.shape == (4, 32)
    assert torch.equal(padded[:, :21], log_mel)
    assert (padded[:, 21:] == log_mel.min()).all()
    assert pad_to_stride(padded).shape == (4, 32)


def test_every_weight_gets_a_gradient(cnn):
    cnn(*clips([16000, 16000])).h.square().sum().backward()
    missing = [n for n, p in cnn.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    cnn.zero_grad()
    assert not missing


@pytest.mark.parametrize(
    "settings",
    [
        {"channels": (8, 8)},
        {"blocks": (1, 1)},
        {"blocks": (1, 1, -1)},
        {"chunk_frames": 1000},
        {"log_mel": LogMelConfig(n_mels=40)},
    ],
)
def test_sizes_that_break_the_stride_of_16_are_refused(settings):
    with pytest.raises(ValidationError):
        CNNConfig(**settings)
