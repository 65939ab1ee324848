"""CED against reference outputs, and its promise that a batch changes nothing."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from earwitness.encoders import load_frame_encoder, save_frame_encoder
from earwitness.encoders.ced import CED, CEDConfig, ced_state
from earwitness.encoders.log_mel import LogMel, LogMelConfig
from earwitness.errors import CheckpointError

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
        (k if k.startswith("outputlayer") else f"encoder.{k}"): v
        for k, v in ced.state_dict().items()
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


HUB_SETTINGS = {
    "model_type": "ced",
    "architectures": ["CedForAudioClassification"],
    "embed_dim": 48,
    "depth": 2,
    "num_heads": 3,
    "mlp_ratio": 4.0,
    "qkv_bias": True,
    "patch_size": 16,
    "patch_stride": 16,
    "target_length": 1012,
    "n_mels": 64,
    "n_fft": 512,
    "win_size": 512,
    "hop_size": 160,
    "f_min": 0,
    "f_max": 8000,
    "pooling": "mean",
    "outputdim": 527,
}


def hub_folder(folder, ced, **changes):
    """A folder as the hub's `mispeech/ced-*`: `encoder.` before every key but the head's."""
    state = {
        (k if k.startswith("outputlayer") else f"encoder.{k}"): v.contiguous()
        for k, v in ced.state_dict().items()
    }
    folder.mkdir()
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({**HUB_SETTINGS, **changes}))
    return folder


@torch.inference_mode()
def test_ced_loads_from_a_hub_folder_as_it_is(ced, tmp_path):
    loaded = load_frame_encoder(hub_folder(tmp_path / "ced-small", ced))
    waveform = torch.randn(1, 16000 * 2, generator=torch.Generator().manual_seed(0)) * 0.1
    lengths = torch.tensor([32000])
    assert not loaded.training
    assert torch.equal(loaded(waveform, lengths).h, ced(waveform, lengths).h)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"patch_stride": 10}, "without overlap"),
        ({"pooling": "logit"}, "pooling 'mean'"),
        ({"win_size": 400}, "win_size"),
        ({"depth": 3}, "blocks.2.* is missing"),
        ({"depth": 1}, "unknown weight 'blocks.1"),
        ({"embed_dim": 24}, "has shape"),
        ({"embed_dim": "wide"}, "embed_dim"),
        ({"outputdim": 10}, "outputlayer.1.* has shape"),
    ],
)
def test_a_hub_folder_that_does_not_fit_is_refused(ced, tmp_path, changes, words):
    with pytest.raises(CheckpointError, match=words):
        load_frame_encoder(hub_folder(tmp_path / "ced", ced, **changes))


def test_ced_is_saved_and_loaded_bitwise(ced, tmp_path):
    save_frame_encoder(ced, tmp_path / "ced")
    loaded = load_frame_encoder(tmp_path / "ced")
    assert loaded.config == ced.config
    state = loaded.state_dict()
    assert all(torch.equal(state[name], value) for name, value in ced.state_dict().items())


CED_SIZES = {
    "tiny": CEDConfig(embed_dim=192, num_heads=3),
    "mini": CEDConfig(embed_dim=256, num_heads=4),
    "small": CEDConfig(embed_dim=384, num_heads=6),
    "base": CEDConfig(),
}


@pytest.mark.parametrize("size", CED_SIZES)
def test_ced_sizes_have_the_weights_of_their_formula(size):
    """A transformer block of width D has 12 D^2 + 13 D weights; the rest is counted by part."""
    config = CED_SIZES[size]
    with torch.device("meta"):
        model = CED(config)
    dim, classes = config.embed_dim, config.outputdim
    blocks = config.depth * (12 * dim**2 + 13 * dim)
    ends = 2 * 64 + (16 * 16 + 1) * dim + (63 + 4) * dim + 2 * dim
    head = 2 * dim + (dim + 1) * classes
    assert sum(p.numel() for p in model.parameters()) == blocks + ends + head
    millions = {"tiny": 5.5, "mini": 9.6, "small": 22, "base": 86}
    assert (blocks + ends + head) / 1e6 == pytest.approx(millions[size], rel=0.02)
