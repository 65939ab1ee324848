"""Topology losses: the predicted embeddings keep the pairwise geometry of the text embeddings.

Diffusion-Link (arXiv 2510.11330) names such a loss and its purpose; its equation is not public.
The default, "gram", is this project's choice: it has no scale, no parameters and uses only the
batch. The others are other plausible readings, one word in the recipe away. All need large batches
(256 and more) to see the geometry.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import huber_loss, normalize

Topology = Literal["gram", "cross_gram", "knn_gram", "distance"]

_SMALLEST_NORM = 0.05


def topology_loss(
    predicted: Float[Tensor, "B C"],
    target: Float[Tensor, "B C"],
    kind: Topology = "gram",
    neighbors: int = 8,
    row_weight: Float[Tensor, " B"] | None = None,
) -> Float[Tensor, ""]:
    """How far the geometry of `predicted` is from that of `target`; 0 when they agree.

    `G_ij = cos(target_i, target_j)` is compared over the pairs i != j with:

    - gram: `cos(predicted_i, predicted_j)`, squared difference;
    - cross_gram: `cos(predicted_i, target_j)`, squared difference;
    - knn_gram: as gram, only where j is one of the `neighbors` nearest to i in `target`;
    - distance: L2 distances divided by their batch mean, Huber loss (relational knowledge
      distillation, arXiv 1904.05068).

    `target` has unit rows, `predicted` about unit rows: below a norm of 0.05 a row is weighted by
    its length, which bounds the gradient where an untrained network gives zeros. A pair's weight is
    the geometric mean of its two `row_weight`, 1 if not given. A batch of one has no pairs and
    gives 0.
    """
    if predicted.shape[0] < 2:
        return predicted.sum() * 0.0
    y_hat = normalize(predicted, dim=1, eps=_SMALLEST_NORM)
    y = normalize(target, dim=1)
    pairs = ~torch.eye(len(y), dtype=torch.bool, device=y.device)
    gram = y @ y.T
    if kind == "distance":
        errors = huber_loss(_distances(y_hat, pairs), _distances(y, pairs), reduction="none")
    else:
        errors = (y_hat @ (y if kind == "cross_gram" else y_hat).T - gram) ** 2
    if kind == "knn_gram":
        pairs = _nearest(gram, pairs, neighbors)
    if row_weight is not None:
        errors = errors * (row_weight[:, None] * row_weight[None, :]).sqrt()
    return errors[pairs].mean()


def _distances(x: Tensor, pairs: Tensor) -> Tensor:
    # On the diagonal the distance is 0, where the square root has no gradient.
    squares = (2.0 - 2.0 * (x @ x.T)).masked_fill(~pairs, 1.0).clamp(min=1e-8)
    distances = squares.sqrt()
    return distances / distances[pairs].mean().clamp(min=1e-4)


def _nearest(gram: Tensor, pairs: Tensor, neighbors: int) -> Tensor:
    count = min(neighbors, len(gram) - 1)
    nearest = gram.masked_fill(~pairs, -torch.inf).topk(count, dim=1).indices
    return torch.zeros_like(pairs).scatter(1, nearest, True)
