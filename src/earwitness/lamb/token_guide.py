"""LAMB's Token Guide (arXiv 2601.04658): audio tokens steer the logits towards the words that lie
near them.

g_v = - mean_i || z_a,i - e_v ||^2 for every row e_v of the LLM's embedding table, l' = l + beta g;
used in the training loss and at every step of decoding. The paper leaves open how the audio tokens
are aggregated, where beta starts and what happens to special tokens.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import NonNegativeFloat
from torch import Tensor, nn
from transformers import LogitsProcessor

from earwitness.config import Strict

_ROWS_AT_ONCE = 2048
"""vocabulary rows compared at a time where no matrix product will do (L1)"""


class TokenGuideConfig(Strict):
    """Metric (Table 3 of the paper: squared L2 is best), aggregation over audio tokens, start of
    beta.
    """

    metric: Literal["l2", "l1", "cosine"] = "l2"
    aggregation: Literal["mean", "max", "logsumexp"] = "mean"
    beta: NonNegativeFloat = 0.1


class TokenGuide(nn.Module):
    """Guide scores of a vocabulary, and the learnable strength `beta`."""

    def __init__(self, config: TokenGuideConfig) -> None:
        super().__init__()
        self.config = config
        self.beta = nn.Parameter(torch.tensor(config.beta))

    def forward(
        self,
        z_a: Float[Tensor, "B G E"],
        mask: Bool[Tensor, "B G"],
        table: Float[Tensor, "V E"],
        special: Bool[Tensor, " V"],
    ) -> Float[Tensor, "B V"]:
        """The bias beta * g that is added to the logits.

        Scores are centered over ordinary tokens, and special tokens (end of sentence among them)
        get 0: the guide neither changes the length of a caption nor lets padding through. Centering
        changes no softmax over ordinary tokens. In float32 even under autocast.
        """
        with torch.autocast(z_a.device.type, enabled=False):
            scores = guide_scores(z_a.float(), mask, table.float(), self.config)
        ordinary = ~special
        center = scores[:, ordinary].mean(1, keepdim=True)
        return self.beta * (scores - center).masked_fill(special, 0.0)


def guide_scores(
    z_a: Float[Tensor, "B G E"],
    mask: Bool[Tensor, "B G"],
    table: Float[Tensor, "V E"],
    config: TokenGuideConfig,
) -> Float[Tensor, "B V"]:
    """Nearness of every vocabulary row to the audio tokens; nearer is larger. LAMB, Token Guide.

    With squared L2 and mean aggregation this is exactly one matrix product with the mean token;
    `max` takes the nearest audio token, `logsumexp` lies between.
    """
    weight = mask.to(z_a.dtype) / mask.sum(1, keepdim=True).to(z_a.dtype)
    if config.metric == "l2" and config.aggregation == "mean":
        mean = (z_a * weight[..., None]).sum(1)
        spread = (z_a.square().sum(-1) * weight).sum(1, keepdim=True)
        return 2 * mean @ table.T - table.square().sum(-1)[None, :] - spread
    nearness = _nearness(z_a, table, config.metric)
    if config.aggregation == "mean":
        return torch.einsum("bgv,bg->bv", nearness, weight)
    nearness = nearness.masked_fill(~mask[..., None], -torch.inf)
    if config.aggregation == "max":
        return nearness.amax(1)
    return nearness.logsumexp(1) - mask.sum(1, keepdim=True).to(z_a.dtype).log()


def _nearness(
    z_a: Float[Tensor, "B G E"], table: Float[Tensor, "V E"], metric: str
) -> Float[Tensor, "B G V"]:
    if metric == "cosine":
        unit = nn.functional.normalize
        return unit(z_a, dim=-1) @ unit(table, dim=-1).T
    if metric == "l1":
        parts = [torch.cdist(z_a, rows[None], p=1) for rows in table.split(_ROWS_AT_ONCE)]
        return -torch.cat(parts, dim=-1)
    norms = z_a.square().sum(-1, keepdim=True) + table.square().sum(-1)
    return 2 * z_a @ table.T - norms


class GuideProcessor(LogitsProcessor):
    """Adds the guide's bias while transformers generates; equal to the bias of the training loss.

    Beam search hands over log-probabilities, other searches logits: the sum is normalized again, so
    both mean log softmax(logits + bias).
    """

    def __init__(self, bias: Float[Tensor, "B V"]) -> None:
        self.bias = bias

    def __call__(
        self, input_ids: Int[Tensor, "rows length"], scores: Float[Tensor, "rows V"]
    ) -> Float[Tensor, "rows V"]:
        """`scores` with the bias of each row's clip; rows are clip-major, beam after beam."""
        beams = len(scores) // len(self.bias)
        bias = self.bias.repeat_interleave(beams, dim=0).to(scores.dtype)
        return torch.log_softmax(scores + bias, dim=-1)
