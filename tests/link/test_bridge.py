"""Diffusion-Link: network, training loss, sampling; and what holds for every bridge."""

from pathlib import Path
from typing import Any

import pytest
import torch
from embeddings import (
    TRAINED,
    D,
    build,
    fresh,
    generator,
    units,
)
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

from earwitness.config import validate
from earwitness.errors import ConfigError, DataError, TrainingError
from earwitness.link import DiffusionLink, DiffusionLinkConfig, bridge_kinds
from earwitness.link.network import NetworkConfig, Projector, ResidualMLP

# Network


@pytest.mark.parametrize(("dim", "count"), [(512, 9_725_440), (1024, 38_849_536)])
def test_network_has_the_stated_number_of_parameters(dim: int, count: int) -> None:
    with torch.device("meta"):
        network = ResidualMLP(NetworkConfig(dim=dim))
    assert sum(p.numel() for p in network.parameters()) == count


def test_network_output_is_zero_before_training() -> None:
    network = ResidualMLP(NetworkConfig(dim=D), context_dim=D)
    out = network(units(3), torch.tensor([0, 5, 999]), units(3, seed=1))
    assert torch.equal(out, torch.zeros(3, D))


def test_network_equals_a_plain_restatement() -> None:
    """Every layer written out once more with functional calls."""
    link = build("diffusion_link", blocks=2)
    x, t = units(4), torch.tensor([0, 10, 500, 999])
    p, F = dict(link.network.named_parameters()), nn.functional

    def linear(v: Tensor, key: str) -> Tensor:
        return v @ p[f"{key}.weight"].T + p[f"{key}.bias"]

    def norm(v: Tensor, key: str, eps: float) -> Tensor:
        centred = v - v.mean(dim=1, keepdim=True)
        scaled = centred / (centred.square().mean(dim=1, keepdim=True) + eps).sqrt()
        return scaled * p[f"{key}.weight"] + p[f"{key}.bias"]

    angles = t[:, None] / 10_000.0 ** (torch.arange(D) / D)
    emb = linear(F.silu(linear(torch.cat([angles.cos(), angles.sin()], 1), "time.0")), "time.2")
    h = linear(x, "input")
    for i in range(2):
        b = f"blocks.{i}."
        inner = linear(F.silu(norm(h, f"{b}inner.0", 1e-5)), f"{b}inner.2")
        inner = inner + linear(F.silu(emb), f"{b}time.1")
        h = h + linear(F.silu(norm(inner, f"{b}outer.0", 1e-5)), f"{b}outer.3")
    y = linear(F.silu(norm(h, "output.0", 1e-6)), "output.2")
    torch.testing.assert_close(link.network(x, t), y, rtol=1e-4, atol=1e-4)


def test_projector_gives_one_token_through_2048_units() -> None:
    projector = Projector(D, 24)
    sizes = sorted(tuple(p.shape) for p in projector.parameters())
    assert sizes == [(24,), (24, 2048), (2048,), (2048, D)]
    assert projector(units(3)).shape == (3, 1, 24)


# Diffusion-Link


def test_link_cross_loss_of_the_untrained_network_is_the_mean_absolute_target() -> None:
    link = DiffusionLink(DiffusionLinkConfig(dim=D))
    terms = link.training_loss(units(8), units(8, seed=1), generator())
    expected = (units(8, seed=1) * D**0.5).abs().mean()
    torch.testing.assert_close(terms["cross_audio"], expected)
    torch.testing.assert_close(terms["cross_text"], expected)


def test_link_terms_carry_their_weights_and_a_zero_weight_drops_its_term() -> None:
    def terms(**settings: Any) -> dict[str, Tensor]:
        link = build("diffusion_link", **settings)
        return link.training_loss(units(8), units(8, seed=1), generator())

    plain, heavy = terms(), terms(audio_weight=3.0, topology_weight=10.0)
    torch.testing.assert_close(heavy["cross_audio"], 3 * plain["cross_audio"])
    torch.testing.assert_close(heavy["topology"], 10 * plain["topology"])
    torch.testing.assert_close(heavy["cross_text"], plain["cross_text"])
    assert set(terms(topology_weight=0.0)) == {"cross_audio", "cross_text"}
    assert set(terms(audio_weight=0.0)) == {"cross_text", "topology"}


def test_link_target_is_the_text_of_the_pair_whatever_the_length_of_the_rows() -> None:
    link = build("diffusion_link")
    a, t = units(8), units(8, seed=1)
    unit, long = (link.training_loss(a * s, t * s, generator()) for s in (1.0, 7.0))
    for name in unit:
        torch.testing.assert_close(unit[name], long[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("paired", [True, False])
def test_link_pair_shares_its_time_only_if_told_to(paired: bool) -> None:
    link, seen = build("diffusion_link", paired_time=paired), []
    link.network.register_forward_pre_hook(lambda module, args: seen.append(args[1]))
    link.training_loss(units(16), units(16, seed=1), generator())
    t_a, t_t = seen[0].chunk(2)
    assert torch.equal(t_a, t_t) is paired


def test_link_topology_is_spared_from_noise_by_alpha_bar() -> None:
    plain, spared = (
        build("diffusion_link", topology_time_weight=kind)
        .training_loss(units(64), units(64, seed=1), generator())["topology"]
        .item()
        for kind in ("none", "alpha_bar")
    )
    assert 0 < spared < 0.9 * plain


def test_link_result_of_an_untrained_network_is_zero() -> None:
    link = DiffusionLink(DiffusionLinkConfig(dim=D))
    assert torch.equal(link(units(3)), torch.zeros(3, D))


def test_link_one_step_equals_a_restatement() -> None:
    link = build("diffusion_link", start_time=100)
    e, abar = units(3), link.alpha_bar[100]
    noise = torch.randn(1, D, generator=generator(4))
    x_t = abar.sqrt() * e * D**0.5 + (1 - abar).sqrt() * noise
    expected = normalize(link.network(x_t, torch.full((3,), 100)), dim=1)
    torch.testing.assert_close(link(e, seed=4), expected)


def test_link_does_not_ask_where_an_embedding_came_from() -> None:
    link = build("diffusion_link", steps=3)
    assert torch.equal(link(units(3), side="audio"), link(units(3), side="text"))


def test_link_without_start_noise_needs_no_seed() -> None:
    link = build("diffusion_link", add_start_noise=False, start_time=400, steps=5)
    assert torch.equal(link(units(3), seed=1), link(units(3), seed=2))


def test_link_averages_its_draws_before_it_normalises() -> None:
    e, g = units(3), generator(6)
    link = build("diffusion_link", draws=4, start_time=300)
    x = e * D**0.5
    abar = link.alpha_bar[300]
    predictions = [
        link.network(
            abar.sqrt() * x + (1 - abar).sqrt() * torch.randn(1, D, generator=g),
            torch.full((3,), 300),
        )
        for _ in range(4)
    ]
    torch.testing.assert_close(link(e, seed=6), normalize(sum(predictions), dim=1))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"start_time": 1000}, "below diffusion_steps"),
        ({"topology": "grams"}, "topology"),
        ({"width": 31}, "width"),
        ({"dropout": 1.0}, "dropout"),
        ({"topolgy_weight": 1.0}, "did you mean 'topology_weight'"),
    ],
)
def test_link_config_refuses_what_cannot_be(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        validate(DiffusionLinkConfig, settings, "recipe")


# What holds for every bridge


@pytest.mark.parametrize("side", ["audio", "text"])
@pytest.mark.parametrize("name", bridge_kinds())
def test_bridge_gives_unit_rows_that_depend_on_no_neighbour(name: str, side: Any) -> None:
    bridge, e = build(name), units(6)
    with torch.no_grad():
        together = bridge(e, seed=3, side=side)
        alone = torch.cat([bridge(row[None], seed=3, side=side) for row in e])
    torch.testing.assert_close(together.norm(dim=1), torch.ones(6))
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", bridge_kinds())
def test_bridge_commutes_with_permutations(name: str) -> None:
    bridge, e = build(name), units(6)
    order = torch.tensor([3, 0, 5, 1, 2, 4])
    with torch.no_grad():
        torch.testing.assert_close(bridge(e[order]), bridge(e)[order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", ["audio", "text"])
@pytest.mark.parametrize("name", bridge_kinds())
def test_bridge_is_a_function_of_its_seed(name: str, side: Any) -> None:
    bridge, e = build(name), units(6)
    noisy = {
        "audio": {"diffusion_link", "conditional_prior"},
        "text": {"diffusion_link", "noise_injection", "diffusion_bridge"},
    }
    with torch.no_grad():
        first, again, other = (bridge(e, seed=seed, side=side) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert torch.equal(first, other) is (name not in noisy[side])


def test_bridge_with_a_generator_gives_equal_rows_different_noise() -> None:
    bridge, e = build("noise_injection"), units(1).expand(4, D)
    shared, fresh = bridge(e, side="text"), bridge(e, side="text", generator=generator())
    assert torch.equal(shared[0], shared[1])
    assert not torch.allclose(fresh[0], fresh[1], atol=1e-2)


@pytest.mark.parametrize("name", bridge_kinds())
def test_bridge_checkpoint_is_plain_tensors_and_restores_the_bridge(
    name: str, tmp_path: Path
) -> None:
    bridge = build(name)
    saved = bridge.state_dict()
    if saved:
        save_file(saved, tmp_path / "bridge.safetensors")
        saved = load_file(tmp_path / "bridge.safetensors")
    restored = validate(type(bridge.config), bridge.config.model_dump(), "saved").build()
    restored.load_state_dict(saved, strict=True)
    with torch.no_grad():
        assert torch.equal(restored.eval()(units(4)), bridge(units(4)))


@pytest.mark.parametrize("name", bridge_kinds())
def test_bridge_cast_to_bfloat16_still_gives_float32_units(name: str) -> None:
    bridge, e = build(name), units(4)
    with torch.no_grad():
        exact = bridge(e)
        rounded = bridge.to(torch.bfloat16)(e)
    assert rounded.dtype == torch.float32
    assert cosine_similarity(rounded, exact).min().item() > 0.98


@pytest.mark.parametrize("name", bridge_kinds())
def test_bridge_built_without_memory_takes_its_tensors_from_the_checkpoint(name: str) -> None:
    bridge = build(name)
    with torch.device("meta"):
        empty = bridge.config.build()
    empty.load_state_dict(bridge.state_dict(), strict=True, assign=True)
    with torch.no_grad():
        assert torch.equal(empty.eval()(units(4)), bridge(units(4)))


def test_bridge_used_in_inference_mode_can_still_be_trained() -> None:
    settings = {"diffusion_steps": 321, "start_time": 7, "topology_time_weight": "alpha_bar"}
    link = build("diffusion_link", **settings)
    with torch.inference_mode():
        link(units(2))
    sum(link.training_loss(units(8), units(8, seed=1), generator()).values()).backward()


@pytest.mark.parametrize("name", bridge_kinds())
def test_bridge_refuses_embeddings_of_another_size(name: str) -> None:
    with pytest.raises(DataError, match="expects embeddings of 16 numbers, got 8"):
        build(name)(units(2, 8))


@pytest.mark.parametrize("name", bridge_kinds())
def test_bridge_says_what_it_needs(name: str) -> None:
    bridge = fresh(name)
    if bridge.needs_statistics:
        with pytest.raises(TrainingError, match="fit_statistics"):
            bridge(units(2))
    if not bridge.trains:
        with pytest.raises(TrainingError, match="nothing to train"):
            bridge.training_loss(units(2), units(2), generator())
    assert bridge.trains is (name in TRAINED)


@pytest.mark.parametrize("name", TRAINED)
def test_bridge_training_loss_is_a_function_of_its_generator(name: str) -> None:
    bridge = build(name)
    losses = [
        sum(
            v.item()
            for v in bridge.training_loss(units(8), units(8, seed=1), generator(s)).values()
        )
        for s in (1, 1, 2)
    ]
    assert losses[0] == losses[1]
    assert (losses[0] == losses[2]) is (name == "regressor")
