"""LAMB's Token Guide (arXiv 2601.04658): audio tokens steer the logits toward the words that lie
near them.

g_v = - mean_i || z_a,i - e_v ||^2 for every row e_v of the LLM's embedding table, l' = l + beta g;
used in the training loss and at every step of decoding. The paper leaves open how the audio tokens
are aggregated, where beta starts and what happens to special tokens.

Written out, g_v = 2 z . e_v - |e_v|^2 + const with the mean audio token z. The norm |e_v|^2 is the
same for every clip, and so is the part of z that all clips share: with a small language model these
two are nearly all of g, and the clip-specific rest is small. `form = "centered"` keeps only that
rest: g_v = 2 (z - m) . e_v, with m the running mean of z over the clips of training [choice].
"""

from typing import Literal

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Int
from pydantic import NonNegativeFloat, model_validator
from torch import Tensor, nn
from transformers import LogitsProcessor

from earwitness.config import Strict

_ROWS_AT_ONCE = 2048
"""vocabulary rows compared at a time where a single matrix product is not enough (distances)"""

_MOMENTUM = 0.01
"""weight of a batch in the running mean of `form = "centered"`, once 1 / batches has fallen so
far"""


class TokenGuideConfig(Strict):
    """Metric (Table 3 of the paper: squared L2 is best), aggregation over audio tokens, form,
    initial beta.
    """

    metric: Literal["l2", "l2_distance", "l1", "cosine"] = "l2"
    """"l2" is the squared distance, "l2_distance" its root; the paper names both"""
    aggregation: Literal["mean", "max", "logsumexp"] = "mean"
    form: Literal["distance", "centered"] = "distance"
    """the paper's distances, or only the part that differs between clips"""
    beta: NonNegativeFloat = 0.1
    """initial value of the learnable strength; `fit.learning_rates` can set its learning rate"""

    @model_validator(mode="after")
    def _centered_is_a_product(self) -> "TokenGuideConfig":
        if self.form == "centered" and (self.metric, self.aggregation) != ("l2", "mean"):
            raise ValueError(
                "form 'centered' is defined for metric 'l2' with aggregation 'mean', got "
                f"{self.metric!r} with {self.aggregation!r}"
            )
        return self


class TokenGuide(nn.Module):
    """Guide scores of a vocabulary, and the learnable strength `beta`.

    With `form = "centered"` also the running mean of the mean audio token, part of the saved model.
    """

    mean_token: Float[Tensor, " E"]
    batches: Int[Tensor, ""]

    def __init__(self, config: TokenGuideConfig, dim: int) -> None:
        """A guide for audio tokens of width `dim`, E."""
        super().__init__()
        self.config = config
        self.beta = nn.Parameter(torch.tensor(config.beta))
        if config.form == "centered":
            self.register_buffer("mean_token", torch.zeros(dim))
            self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

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
            scores = self._scores(z_a.float(), mask, table.float())
        ordinary = ~special
        center = scores[:, ordinary].mean(1, keepdim=True)
        return self.beta * (scores - center).masked_fill(special, 0.0)

    def _scores(
        self, z_a: Float[Tensor, "B G E"], mask: Bool[Tensor, "B G"], table: Float[Tensor, "V E"]
    ) -> Float[Tensor, "B V"]:
        if self.config.form == "distance":
            return guide_scores(z_a, mask, table, self.config)
        mean = (z_a * _shares(mask, z_a)[..., None]).sum(1)
        if self.training:
            self._follow(mean.detach())
        return 2 * (mean - self.mean_token.float()) @ table.T

    @torch.no_grad()
    def _follow(self, mean: Float[Tensor, "B E"]) -> None:
        """Moves the running mean toward the mean of this batch, on all processes alike."""
        batch = mean.mean(0)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(batch)  # pyright: ignore[reportUnknownMemberType] - torch: no types
            batch /= dist.get_world_size()
        self.batches += 1
        share = (1.0 / self.batches).clamp(min=_MOMENTUM)
        self.mean_token += share * (batch - self.mean_token)


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
    weight = _shares(mask, z_a)
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


def _shares(mask: Bool[Tensor, "B G"], like: Tensor) -> Float[Tensor, "B G"]:
    """The weight of each audio token in the mean of its clip."""
    return mask.to(like.dtype) / mask.sum(1, keepdim=True).to(like.dtype)


def _nearness(
    z_a: Float[Tensor, "B G E"], table: Float[Tensor, "V E"], metric: str
) -> Float[Tensor, "B G V"]:
    if metric == "cosine":
        unit = nn.functional.normalize
        return unit(z_a, dim=-1) @ unit(table, dim=-1).T
    if metric in ("l1", "l2_distance"):
        p = 1 if metric == "l1" else 2
        starts = range(0, len(table), _ROWS_AT_ONCE)
        parts = [torch.cdist(z_a, table[None, i : i + _ROWS_AT_ONCE], p=p) for i in starts]
        return -torch.cat(parts, dim=-1)
    norms = z_a.square().sum(-1, keepdim=True) + table.square().sum(-1)
    return 2 * z_a @ table.T - norms


class GuideProcessor(LogitsProcessor):
    """Adds the guide's bias while transformers generates; equal to the bias of the training loss.

    Beam search passes log-probabilities, other searches logits: the sum is normalized again, so
    both give log softmax(logits + bias).
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
