"""Builders for bridge tests: embeddings, a constructed modality gap, bridges, a short training."""

from typing import Any, NamedTuple

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

from earwitness.link import AnyBridgeConfig, Bridge

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


def fresh(name: str, **settings: Any) -> Bridge:
    """The bridge `name` as its settings build it."""
    given = {"kind": name, "dim": D, **settings}
    return TypeAdapter(AnyBridgeConfig).validate_python(given).build()


def build(name: str, **settings: Any) -> Bridge:
    """The bridge `name`, fitted, its network (if any) with random instead of zero outputs."""
    torch.manual_seed(0)
    bridge = fresh(name, **settings).eval()
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
