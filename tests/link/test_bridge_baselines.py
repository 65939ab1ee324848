"""The baselines of Diffusion-Link against their closed forms and stated schedules."""

import pytest
import torch
from embeddings import D, build, fresh, generator, units
from torch import Tensor
from torch.nn.functional import normalize

from earwitness.errors import DataError, TrainingError
from earwitness.link.baselines import (
    MeanShift,
    MeanShiftConfig,
    NoBridgeConfig,
    NoiseInjection,
    NoiseInjectionConfig,
    TextMemory,
    TextMemoryConfig,
)
from earwitness.link.diffusion import cosine, ddim_times
from earwitness.link.learned_baselines import ConditionalPrior, DiffusionBridge


def test_none_leaves_embeddings_alone() -> None:
    torch.testing.assert_close(NoBridgeConfig(dim=D).build()(units(4)), units(4))


def test_mean_shift_moves_the_audio_mean_onto_the_text_mean() -> None:
    text = normalize(units(30) + 1.0, dim=1)
    audio = normalize(units(30, seed=1) - 1.0, dim=1)
    bridge = MeanShift(MeanShiftConfig(dim=D))
    bridge.fit_statistics(audio, text)
    shifted = audio - audio.mean(dim=0) + text.mean(dim=0)
    torch.testing.assert_close(shifted.mean(dim=0), text.mean(dim=0))
    torch.testing.assert_close(bridge(audio), normalize(shifted, dim=1))
    torch.testing.assert_close(bridge(text, side="text"), text)


def test_noise_injection_has_the_configured_variance_and_spares_audio() -> None:
    bridge = NoiseInjection(NoiseInjectionConfig(dim=512, variance=0.016))
    e = units(1, 512).expand(500, 512)
    torch.testing.assert_close(bridge(e), e)
    cosines = (bridge(e, side="text", generator=generator()) * e).sum(dim=1)
    assert cosines.mean().item() == pytest.approx((1 + 512 * 0.016) ** -0.5, abs=0.01)


def test_noise_injection_offset_puts_text_where_audio_is() -> None:
    text = normalize(units(30) + 1.0, dim=1)
    audio = normalize(units(30, seed=1) - 1.0, dim=1)
    bridge = NoiseInjection(NoiseInjectionConfig(dim=D, variance=0.0, offset=True))
    with pytest.raises(TrainingError, match="fit_statistics"):
        bridge(text, side="text")
    bridge.fit_statistics(audio, text)
    expected = normalize(text + audio.mean(dim=0) - text.mean(dim=0), dim=1)
    torch.testing.assert_close(bridge(text, side="text"), expected)


def test_text_memory_recalls_a_stored_text_when_cold_and_the_mean_when_hot() -> None:
    memory = units(20, seed=4)
    for temperature, expected in ((1e-3, memory[:1]), (1e4, memory.mean(dim=0, keepdim=True))):
        bridge = TextMemory(TextMemoryConfig(dim=D, memory_size=64, temperature=temperature))
        bridge.fit_statistics(units(1), memory)
        got = bridge(normalize(memory[:1] + 0.02, dim=1))
        torch.testing.assert_close(got, normalize(expected, dim=1), rtol=1e-3, atol=1e-3)


def test_text_memory_keeps_at_most_its_size_spread_over_the_texts() -> None:
    bridge = TextMemory(TextMemoryConfig(dim=D, memory_size=5))
    texts = units(20)
    bridge.fit_statistics(units(1), texts)
    torch.testing.assert_close(bridge.memory, texts[::4])


def test_diffusion_bridge_weighs_errors_by_the_signal_to_noise_ratio() -> None:
    """The untrained network predicts 0, so each row's error is the norm 5 squared over D."""
    bridge = fresh("diffusion_bridge")
    bridge.fit_statistics(units(40, seed=1), units(50, seed=2))
    times = torch.randint(1000, (64,), generator=generator())
    abar = cosine(1000)[times]
    expected = (abar / (1 - abar)).mean() * 25 / D
    loss = bridge.training_loss(units(64), units(64, seed=2), generator())["denoising"]
    torch.testing.assert_close(loss, expected)


def test_diffusion_bridge_network_always_sees_norm_five_at_the_stated_times() -> None:
    bridge, seen = build("diffusion_bridge"), []
    assert isinstance(bridge, DiffusionBridge)
    bridge.network.register_forward_pre_hook(lambda module, args: seen.append(args))
    bridge(units(3))
    bridge(units(3), side="text")
    assert [int(t[0]) for _, t in seen] == ddim_times(600, 5) + ddim_times(400, 5)
    bridge.training_loss(units(3), units(3, seed=1), generator())
    for x, _ in seen:
        torch.testing.assert_close(x.norm(dim=1), torch.full((3,), 5.0))


def test_conditional_prior_starts_from_noise_alone_and_hears_its_context() -> None:
    bridge, seen = build("conditional_prior", steps=4), []
    assert isinstance(bridge, ConditionalPrior)
    bridge.network.register_forward_pre_hook(lambda module, args: seen.append(args))
    first, second = units(2)
    bridge(torch.stack([first, second]), seed=8)
    noise = torch.randn(1, D, generator=generator(8)).expand(2, D)
    assert torch.equal(seen[0][0], noise)
    assert [int(t[0]) for _, t, _ in seen] == ddim_times(999, 4)
    torch.testing.assert_close(seen[0][2], torch.stack([first, second]) * D**0.5)


@pytest.mark.parametrize("name", ["mean_shift", "text_memory", "diffusion_bridge"])
@pytest.mark.parametrize("rows", [torch.zeros(0, D), torch.full((2, D), torch.nan), units(2, 8)])
def test_statistics_refuse_unusable_embeddings(name: str, rows: Tensor) -> None:
    with pytest.raises(DataError, match="(audio|text) embeddings"):
        build(name).fit_statistics(units(3, rows.shape[1]), rows)
