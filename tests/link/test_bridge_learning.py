"""Trained bridges close a constructed modality gap on held-out pairs."""

from typing import Any

import numpy as np
import pytest
import torch
from embeddings import (
    D,
    Pairs,
    fresh,
    gap_pairs,
    paired_cosine,
    train,
)
from torch.nn.functional import cosine_similarity

from earwitness.link import (
    DiffusionLink,
    DiffusionLinkConfig,
    simplest_start,
    start_time_sweep,
)
from earwitness.link.base import Noise
from earwitness.link.baselines import MeanShift, MeanShiftConfig
from earwitness.link.bridge import SweepPoint


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
    assert points[0].error == 0
    audio, text = rotated[1]
    best, other = (
        cosine_similarity(link.bridged_from(audio, Noise(0), p.start_time, p.steps), text)
        for p in (points[0], points[3])
    )
    error = np.std((best - other).detach().numpy()) / np.sqrt(len(best))
    assert points[3].error == pytest.approx(error, rel=1e-3)


def test_the_simplest_start_within_one_standard_error_is_chosen() -> None:
    best = SweepPoint(200, 5, 0.710, 0.0)
    near = [SweepPoint(100, 1, 0.706, 0.005), SweepPoint(50, 1, 0.706, 0.005)]
    far = [SweepPoint(0, 1, 0.703, 0.005), SweepPoint(10, 1, 0.705, 0.004)]
    assert simplest_start([best, *near, *far]) == near[1]
    assert simplest_start([best, *far]) == best


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
    torch.manual_seed(0)
    bridge = fresh(name, width=64, bottleneck=64, **settings)
    train(bridge, rotated[0], steps)
    assert paired_cosine(bridge, rotated[1]) > shift_cosine + 0.2


def test_diffusion_bridge_denoises_a_shifted_gap_it_never_saw_pairs_of() -> None:
    """Without a rotation the text prior alone must beat the shift: it knows the text manifold."""
    known, held_out = gap_pairs(4000, 1, rotated=False), gap_pairs(500, 2, rotated=False)
    shift = MeanShift(MeanShiftConfig(dim=D))
    torch.manual_seed(0)
    bridge = fresh("diffusion_bridge", width=64, bottleneck=64, start_time=300)
    for fitted in (shift, bridge):
        fitted.fit_statistics(*known)
    train(bridge, Pairs(torch.zeros_like(known.audio), known.text), 400)
    assert paired_cosine(bridge, held_out) > paired_cosine(shift, held_out) + 0.01
