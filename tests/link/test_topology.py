"""The topology losses against rotations, double loops and direct minimisation."""

from typing import Any

import pytest
import torch
from embeddings import (
    TOPOLOGIES,
    D,
    rotation,
    units,
)
from torch.nn.functional import normalize

from earwitness.link.topology import topology_loss


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
    got = topology_loss(x, y, kind, neighbors=k, row_weight=weight)
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
