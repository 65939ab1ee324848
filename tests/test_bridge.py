"""Diffusion-Link and its rivals: network, losses, sampling, learning on a constructed gap."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

from earwitness.bridge import (
    BRIDGES,
    Bridge,
    BridgeConfig,
    DiffusionLink,
    DiffusionLinkConfig,
    MeanShift,
    MeanShiftConfig,
    NetworkConfig,
    NoiseInjection,
    NoiseInjectionConfig,
    Projector,
    ResidualMLP,
    TextMemory,
    TextMemoryConfig,
    start_time_sweep,
    topology_loss,
)
from earwitness.config import validate
from earwitness.errors import ConfigError, DataError, TrainingError

D = 16
TRAINED = ["diffusion_link", "regressor", "diffusion_bridge", "conditional_prior"]
TOPOLOGIES = ["gram", "cross_gram", "knn_gram", "distance"]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def units(n: int, dim: int = D, seed: int = 0) -> Tensor:
    return normalize(torch.randn(n, dim, generator=generator(seed)), dim=1)


def rotation(dim: int = D, seed: int = 9) -> Tensor:
    return torch.linalg.qr(torch.randn(dim, dim, generator=generator(seed)))[0]


class Pairs(NamedTuple):
    audio: Tensor
    text: Tensor


def gap_pairs(n: int, seed: int, *, rotated: bool = True) -> Pairs:
    """Text on a 3-D manifold; audio = the same rotated, shifted and noisy."""
    g = generator(seed)
    latent = torch.randn(n, 3, generator=g)
    text = normalize(torch.tanh(latent @ torch.randn(3, D, generator=generator(77))), dim=1)
    moved = text @ rotation() if rotated else text
    shift = 0.7 * normalize(torch.randn(1, D, generator=generator(78)), dim=1)
    audio = moved + shift + 0.08 * torch.randn(n, D, generator=g)
    return Pairs(normalize(audio, dim=1), text)


def build(name: str, **settings: Any) -> Bridge:
    """The bridge `name`, fitted, its network (if any) with random instead of zero outputs."""
    config, bridge_class = BRIDGES[name]
    torch.manual_seed(0)
    bridge = bridge_class(config(dim=D, **settings)).eval()
    bridge.fit_statistics(units(40, seed=1), units(50, seed=2))
    for module in bridge.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.2)
    return bridge


def train(bridge: Bridge, pairs: Pairs, steps: int, lr: float = 2e-3) -> list[float]:
    optimiser = torch.optim.AdamW(bridge.parameters(), lr=lr)
    g, losses = generator(5), []
    for _ in range(steps):
        rows = torch.randint(len(pairs.text), (256,), generator=g)
        loss = sum(bridge.training_loss(pairs.audio[rows], pairs.text[rows], g).values())
        assert isinstance(loss, Tensor)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def paired_cosine(bridge: Bridge, pairs: Pairs) -> float:
    with torch.no_grad():
        return cosine_similarity(bridge.eval()(pairs.audio), pairs.text).mean().item()


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


# Topology loss


@pytest.mark.parametrize("kind", ["gram", "knn_gram", "distance"])
def test_topology_is_zero_for_equal_grams(kind: Any) -> None:
    """A rotation changes every vector and no pairwise cosine."""
    y = units(20)
    assert topology_loss(y @ rotation(), y, kind).item() < 1e-6
    assert topology_loss(units(20, seed=3), y, kind).item() > 1e-3


def test_cross_gram_topology_is_zero_only_at_the_target() -> None:
    y = units(20)
    assert topology_loss(y, y, "cross_gram").item() < 1e-12
    assert topology_loss(y @ rotation(), y, "cross_gram").item() > 1e-3


@pytest.mark.parametrize("kind", TOPOLOGIES)
def test_topology_equals_the_double_loop(kind: Any) -> None:
    x, y, k = units(7, seed=3), units(7), 2
    weight = torch.linspace(0.1, 1.0, 7)
    pairs = [(i, j) for i in range(7) for j in range(7) if i != j]
    mean_x = sum((x[i] - x[j]).norm() for i, j in pairs) / len(pairs)
    mean_y = sum((y[i] - y[j]).norm() for i, j in pairs) / len(pairs)
    if kind == "knn_gram":
        near = {i: sorted(set(range(7)) - {i}, key=lambda j: -(y[i] @ y[j]))[:k] for i in range(7)}
        pairs = [(i, j) for i in range(7) for j in near[i]]
    total = torch.zeros(())
    for i, j in pairs:
        if kind == "distance":
            error = abs((x[i] - x[j]).norm() / mean_x - (y[i] - y[j]).norm() / mean_y)
            error = 0.5 * error**2 if error < 1 else error - 0.5
        else:
            error = (x[i] @ (y[j] if kind == "cross_gram" else x[j]) - y[i] @ y[j]) ** 2
        total = total + error * (weight[i] * weight[j]).sqrt()
    got = topology_loss(x, y, kind, neighbours=k, row_weight=weight)
    torch.testing.assert_close(got, total / len(pairs), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", TOPOLOGIES)
def test_topology_gradient_stays_bounded_at_the_zero_output(kind: Any) -> None:
    x = torch.zeros(8, D, requires_grad=True)
    topology_loss(x, units(8), kind).backward()
    assert x.grad is not None
    assert x.grad.abs().max().item() < 10.0


@pytest.mark.parametrize("kind", ["gram", "cross_gram", "distance"])
def test_topology_minimised_alone_restores_the_text_gram(kind: Any) -> None:
    y, x = units(30), units(30, seed=3).requires_grad_()
    optimiser = torch.optim.Adam([x], lr=0.05)
    for _ in range(200):
        optimiser.zero_grad()
        topology_loss(x, y, kind).backward()
        optimiser.step()
    x_hat, pairs = normalize(x.detach(), dim=1), ~torch.eye(30, dtype=torch.bool)
    grams = torch.stack([(x_hat @ x_hat.T)[pairs], (y @ y.T)[pairs]])
    assert torch.corrcoef(grams)[0, 1].item() > 0.99


def test_topology_of_a_single_pair_is_zero() -> None:
    assert topology_loss(units(1), units(1, seed=1)).item() == 0.0


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
@pytest.mark.parametrize("name", BRIDGES)
def test_bridge_gives_unit_rows_that_depend_on_no_neighbour(name: str, side: Any) -> None:
    bridge, e = build(name), units(6)
    with torch.no_grad():
        together = bridge(e, seed=3, side=side)
        alone = torch.cat([bridge(row[None], seed=3, side=side) for row in e])
    torch.testing.assert_close(together.norm(dim=1), torch.ones(6))
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", BRIDGES)
def test_bridge_commutes_with_permutations(name: str) -> None:
    bridge, e = build(name), units(6)
    order = torch.tensor([3, 0, 5, 1, 2, 4])
    with torch.no_grad():
        torch.testing.assert_close(bridge(e[order]), bridge(e)[order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", ["audio", "text"])
@pytest.mark.parametrize("name", BRIDGES)
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


@pytest.mark.parametrize("name", BRIDGES)
def test_bridge_checkpoint_is_plain_tensors_and_restores_the_bridge(
    name: str, tmp_path: Path
) -> None:
    bridge = build(name)
    saved = bridge.state_dict()
    if saved:
        save_file(saved, tmp_path / "bridge.safetensors")
        saved = load_file(tmp_path / "bridge.safetensors")
    restored = BRIDGES[name][1](validate(BRIDGES[name][0], bridge.config.model_dump(), "saved"))
    restored.load_state_dict(saved, strict=True)
    with torch.no_grad():
        assert torch.equal(restored.eval()(units(4)), bridge(units(4)))


@pytest.mark.parametrize("name", BRIDGES)
def test_bridge_cast_to_bfloat16_still_gives_float32_units(name: str) -> None:
    bridge, e = build(name), units(4)
    with torch.no_grad():
        exact = bridge(e)
        rounded = bridge.to(torch.bfloat16)(e)
    assert rounded.dtype == torch.float32
    assert cosine_similarity(rounded, exact).min().item() > 0.98


@pytest.mark.parametrize("name", BRIDGES)
def test_bridge_built_without_memory_takes_its_tensors_from_the_checkpoint(name: str) -> None:
    bridge = build(name)
    with torch.device("meta"):
        empty = BRIDGES[name][1](bridge.config)
    empty.load_state_dict(bridge.state_dict(), strict=True, assign=True)
    with torch.no_grad():
        assert torch.equal(empty.eval()(units(4)), bridge(units(4)))


def test_bridge_used_in_inference_mode_can_still_be_trained() -> None:
    settings = {"diffusion_steps": 321, "start_time": 7, "topology_time_weight": "alpha_bar"}
    link = build("diffusion_link", **settings)
    with torch.inference_mode():
        link(units(2))
    sum(link.training_loss(units(8), units(8, seed=1), generator()).values()).backward()


@pytest.mark.parametrize("name", BRIDGES)
def test_bridge_refuses_embeddings_of_another_size(name: str) -> None:
    with pytest.raises(DataError, match="takes embeddings of 16 numbers, got 8"):
        build(name)(units(2, 8))


@pytest.mark.parametrize("name", BRIDGES)
def test_bridge_says_what_it_needs(name: str) -> None:
    config, bridge_class = BRIDGES[name]
    fresh = bridge_class(config(dim=D))
    if fresh.needs_statistics:
        with pytest.raises(TrainingError, match="fit_statistics"):
            fresh(units(2))
    if not fresh.trains:
        with pytest.raises(TrainingError, match="nothing to train"):
            fresh.training_loss(units(2), units(2), generator())
    assert fresh.trains is (name in TRAINED)


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


# Closed forms of the rivals


def test_none_leaves_embeddings_alone() -> None:
    config, bridge_class = BRIDGES["none"]
    assert config is BridgeConfig
    torch.testing.assert_close(bridge_class(config(dim=D))(units(4)), units(4))


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


@pytest.mark.parametrize("name", ["mean_shift", "text_memory", "diffusion_bridge"])
@pytest.mark.parametrize("rows", [torch.zeros(0, D), torch.full((2, D), torch.nan), units(2, 8)])
def test_statistics_refuse_unusable_embeddings(name: str, rows: Tensor) -> None:
    with pytest.raises(DataError, match="(audio|text) embeddings"):
        build(name).fit_statistics(units(3, rows.shape[1]), rows)


# Learning


@pytest.fixture(scope="module")
def rotated() -> tuple[Pairs, Pairs]:
    return gap_pairs(4000, seed=1), gap_pairs(500, seed=2)


@pytest.fixture(scope="module")
def shift_cosine(rotated: tuple[Pairs, Pairs]) -> float:
    bridge = MeanShift(MeanShiftConfig(dim=D))
    bridge.fit_statistics(*rotated[0])
    return paired_cosine(bridge, rotated[1])


@pytest.mark.parametrize(
    ("topology", "reached"),
    [("gram", 0.9), ("cross_gram", 0.9), ("distance", 0.9), ("knn_gram", 0.7)],
)
def test_link_learns_to_close_a_gap_that_mean_shift_cannot(
    topology: Any, reached: float, rotated: tuple[Pairs, Pairs], shift_cosine: float
) -> None:
    torch.manual_seed(0)
    link = DiffusionLink(DiffusionLinkConfig(dim=D, width=64, bottleneck=64, topology=topology))
    losses = train(link, rotated[0], 200)
    assert losses[-1] < 0.7 * losses[0]
    assert shift_cosine < 0.3
    assert paired_cosine(link, rotated[1]) > reached


def test_link_cosine_falls_when_pairs_are_shuffled(rotated: tuple[Pairs, Pairs]) -> None:
    """The gain comes from the pairing: trained on wrong pairs the bridge only knows the mean."""
    torch.manual_seed(0)
    link = DiffusionLink(DiffusionLinkConfig(dim=D, width=64, bottleneck=64))
    wrong = Pairs(rotated[0].audio, rotated[0].text.roll(1, dims=0))
    train(link, wrong, 100)
    assert paired_cosine(link, rotated[1]) < 0.6


def test_sweep_prefers_little_noise_for_clean_pairs_and_is_sorted(
    rotated: tuple[Pairs, Pairs],
) -> None:
    torch.manual_seed(0)
    link = DiffusionLink(DiffusionLinkConfig(dim=D, width=64, bottleneck=64))
    train(link, rotated[0], 150)
    points = start_time_sweep(link, *rotated[1], start_times=(0, 50, 900), steps=(1, 5))
    assert len(points) == 6
    assert [p.cosine for p in points] == sorted((p.cosine for p in points), reverse=True)
    assert {p.start_time for p in points[-2:]} == {900}
    best = DiffusionLinkConfig(
        dim=D, width=64, bottleneck=64, start_time=points[0].start_time, steps=points[0].steps
    )
    chosen = DiffusionLink(best)
    chosen.load_state_dict(link.state_dict())
    assert paired_cosine(chosen, rotated[1]) == pytest.approx(points[0].cosine, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "steps", "settings"),
    [("regressor", 150, {}), ("conditional_prior", 400, {"draws": 4})],
)
def test_paired_rivals_learn_the_rotation_too(
    name: str,
    steps: int,
    settings: dict[str, Any],
    rotated: tuple[Pairs, Pairs],
    shift_cosine: float,
) -> None:
    config, bridge_class = BRIDGES[name]
    torch.manual_seed(0)
    bridge = bridge_class(config(dim=D, width=64, bottleneck=64, **settings))
    train(bridge, rotated[0], steps)
    assert paired_cosine(bridge, rotated[1]) > shift_cosine + 0.2


def test_diffusion_bridge_denoises_a_shifted_gap_it_never_saw_pairs_of() -> None:
    """Without a rotation the text prior alone must beat the shift: it knows the text manifold."""
    known, held_out = gap_pairs(4000, 1, rotated=False), gap_pairs(500, 2, rotated=False)
    config, bridge_class = BRIDGES["diffusion_bridge"]
    shift = MeanShift(MeanShiftConfig(dim=D))
    torch.manual_seed(0)
    bridge = bridge_class(config(dim=D, width=64, bottleneck=64, start_time=300))
    for fitted in (shift, bridge):
        fitted.fit_statistics(*known)
    train(bridge, Pairs(torch.zeros_like(known.audio), known.text), 400)
    assert paired_cosine(bridge, held_out) > paired_cosine(shift, held_out) + 0.01
