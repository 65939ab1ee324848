"""LAMB's Cross-Modal Aligner (arXiv 2601.04658): losses that pull audio tokens into the LLM's
text-embedding space.

Cauchy-Schwarz divergence (`earwitness.cauchy_schwarz`) between the clouds of audio and caption
tokens, per clip and over the batch, and InfoNCE between their means. LAMB specifies neither the
kernel width nor the pooling: we use the median width, detached, and means over tokens. When several
processes train, a batch is that of all of them (`gather`). A clip whose caption has no words is
left out of these losses.
"""

import hashlib
import math
from typing import Any, Literal

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Int, Shaped
from pydantic import PositiveFloat
from torch import Tensor, nn

from earwitness.cauchy_schwarz import SMALLEST_WIDTH, divergence, log_kernel, squared_width
from earwitness.config import Strict


class AlignerConfig(Strict):
    """Kernel width and scaling of the divergences, initial InfoNCE temperature."""

    sigma: PositiveFloat | Literal["median"] = "median"
    l2_normalize: bool = False
    temperature: PositiveFloat = 0.07
    word_weights: Literal["uniform", "inverse_frequency"] = "uniform"
    """weight of a caption token in `cs_token`: equal, or the higher the rarer it is in the training
    captions, so that articles do not attract the audio tokens [choice]"""
    gather: bool = True
    """when several processes train, compute the losses over the clips of all of them"""


class CrossModalAligner(nn.Module):
    """The three alignment losses of a batch; its only parameter is the InfoNCE temperature."""

    def __init__(self, config: AlignerConfig) -> None:
        super().__init__()
        self.config = config
        self.log_scale = nn.Parameter(torch.tensor(-math.log(config.temperature)))
        self.token_weights: Float[Tensor, " V"] | None = None

    def count_words(self, counts: Int[Tensor, " V"]) -> None:
        """Sets how often each token occurs in the training captions, for
        `word_weights = "inverse_frequency"`. Not part of a saved model: only training needs it.
        """
        self.token_weights = 1.0 / counts.clamp(min=1).float()

    def forward(
        self,
        z_a: Float[Tensor, "B G E"],
        a_mask: Bool[Tensor, "B G"],
        z_t: Float[Tensor, "B L E"],
        t_mask: Bool[Tensor, "B L"],
        clip: Int[Tensor, " B"],
        caption: Int[Tensor, " B"] | None = None,
        ids: Int[Tensor, "B L"] | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """`cs_global`, `cs_token` and `infonce`.

        Captions of the same `clip`, and equal captions of different clips (the same number in
        `caption`, see `caption_codes`), are not negatives for each other. `ids` are the tokens
        of `z_t`, for their weights. In float32 even under autocast: distances of LLM-sized
        vectors lose precision in half precision.
        """
        weights = t_mask.float()
        if self.config.word_weights != "uniform" and self.token_weights is not None:
            assert ids is not None
            weights = weights * self.token_weights.to(ids.device)[ids]
        with torch.autocast(z_a.device.type, enabled=False):
            return self._losses(z_a.float(), a_mask, z_t.float(), t_mask, weights, clip, caption)

    def _losses(
        self,
        z_a: Float[Tensor, "B G E"],
        a_mask: Bool[Tensor, "B G"],
        z_t: Float[Tensor, "B L E"],
        t_mask: Bool[Tensor, "B L"],
        weights: Float[Tensor, "B L"],
        clip: Int[Tensor, " B"],
        caption: Int[Tensor, " B"] | None,
    ) -> dict[str, Float[Tensor, ""]]:
        audio, text = masked_mean(z_a, a_mask), masked_mean(z_t, t_mask)
        real, groups = t_mask.any(1), torch.stack([clip, clip if caption is None else caption], 1)
        gather = self.config.gather and self.training and several_processes()
        if gather:
            audio, text = gather_rows(audio), gather_rows(text)
            real, groups = gather_rows(real.long()).bool(), gather_rows(groups)
        audio, text, groups = audio[real], text[real], groups[real]
        infonce = info_nce(audio, text, bounded_scale(self.log_scale), groups)
        if self.config.l2_normalize:
            z_a, z_t, audio, text = (
                nn.functional.normalize(x, dim=-1) for x in (z_a, z_t, audio, text)
            )
        sigma = self.config.sigma
        return {
            "cs_global": cs_divergence(audio, text, sigma) if len(audio) else z_a.sum() * 0,
            "cs_token": cs_token(z_a, a_mask, z_t, t_mask, sigma, gather, weights),
            "infonce": infonce,
        }


def bounded_scale(log_scale: Float[Tensor, ""], largest: float = 100.0) -> Float[Tensor, ""]:
    """exp(`log_scale`), held between 1 and `largest`, as CLIP (arXiv 2103.00020) bounds it.

    The gradient passes through the bound: a plain clamp would give none beyond it, and a
    temperature that once went too far could never come back.
    """
    held = log_scale.clamp(0.0, math.log(largest))
    return (log_scale + (held - log_scale).detach()).exp()


def caption_codes(captions: list[str], device: torch.device) -> Int[Tensor, " B"]:
    """A number for each caption: equal for equal captions, the same in every process."""
    codes = [hashlib.sha256(text.encode()).digest()[:7] for text in captions]
    return torch.tensor([int.from_bytes(code, "big") for code in codes], device=device)


def several_processes() -> bool:
    """Whether this process trains together with others."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def gather_rows(x: Shaped[Tensor, "B ..."]) -> Shaped[Tensor, "all_B ..."]:
    """The rows of all processes, first process first; every process must hold the same number.

    Gradients reach only the rows of this process, times the number of processes: where all
    processes compute the same loss of these rows and then average their gradients, that is its
    exact gradient.
    """
    return _GatherRows.apply(x)  # type: ignore[return-value]


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.cat(_from_all(x.contiguous()))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        count = dist.get_world_size()
        return gradients[0].chunk(count)[dist.get_rank()] * count


def cs_divergence(
    x: Float[Tensor, "M E"], y: Float[Tensor, "N E"], sigma: float | Literal["median"]
) -> Float[Tensor, ""]:
    """Cauchy-Schwarz divergence between the clouds `x` and `y`; 0 when they coincide, never
    negative.

    LAMB, L_CS-global when rows are pooled clips. Computed with logsumexp: at LLM norms the plain
    sums underflow.
    """
    everything = x.new_ones(1, len(x), dtype=torch.bool), y.new_ones(1, len(y), dtype=torch.bool)
    return _divergences(x[None], everything[0], y[None], everything[1], sigma).sum()


def cs_token(
    z_a: Float[Tensor, "B G E"],
    a_mask: Bool[Tensor, "B G"],
    z_t: Float[Tensor, "B L E"],
    t_mask: Bool[Tensor, "B L"],
    sigma: float | Literal["median"],
    gather: bool = False,
    weights: Float[Tensor, "B L"] | None = None,
) -> Float[Tensor, ""]:
    """Mean over clips of the divergence between a clip's audio tokens and its caption's tokens.

    LAMB, L_CS-token. Padding enters neither sums nor counts, and a clip whose caption has no tokens
    does not count; 0 if that is every clip. The whole batch shares one median width; with
    `gather`, the batches of all processes do. `weights` make some caption tokens count for more.
    """
    real = t_mask.any(1)
    found = _divergences(z_a, a_mask, z_t, t_mask, sigma, gather, weights)
    # Not a product with the mask: 0 times the NaN of an empty clip is NaN.
    return torch.where(real, found, 0.0).sum() / real.sum().clamp(min=1)


def info_nce(
    audio: Float[Tensor, "B E"],
    text: Float[Tensor, "B E"],
    scale: Float[Tensor, ""] | float,
    groups: Int[Tensor, " B"] | Int[Tensor, "B K"] | None = None,
) -> Float[Tensor, ""]:
    """Symmetric InfoNCE on cosines times `scale` (1 / temperature); 0 for one pair or none, log B
    for equal similarities.

    LAMB, L_InfoNCE; the symmetric CLIP form is our reading. Pairs that share a group, such as their
    recording or their caption, are not each other's negatives; a pair has one group or K of them.
    """
    if not len(audio):
        return audio.sum() * 0 * scale
    unit = nn.functional.normalize
    similarity = scale * unit(audio, dim=-1) @ unit(text, dim=-1).T
    if groups is not None:
        columns = groups.reshape(len(groups), -1)
        same = (columns[:, None] == columns[None, :]).any(-1)
        similarity = similarity.masked_fill(same.fill_diagonal_(False), -torch.inf)
    target = torch.arange(len(audio), device=audio.device)
    cross_entropy = nn.functional.cross_entropy
    return (cross_entropy(similarity, target) + cross_entropy(similarity.T, target)) / 2


def masked_mean(z: Float[Tensor, "B N E"], mask: Bool[Tensor, "B N"]) -> Float[Tensor, "B E"]:
    """Mean over the tokens where `mask` is True."""
    weight = mask.to(z.dtype)[..., None]
    return (z * weight).sum(1) / weight.sum(1).clamp(min=1)


def median_width(
    squared: Float[Tensor, "B M N"], pairs: Bool[Tensor, "B M N"], gather: bool = False
) -> Float[Tensor, ""]:
    """sigma^2 by the median rule of `earwitness.cauchy_schwarz`, over the clouds of all clips;
    detached. `gather`: of all processes. 1 if there are no pairs.
    """
    values = squared.detach()[pairs]
    if gather:
        values = _of_all_processes(values)
    if not len(values):
        return squared.new_tensor(1.0)
    return squared_width(values.median()).clamp(min=SMALLEST_WIDTH)


def _of_all_processes(values: Float[Tensor, " N"]) -> Float[Tensor, " all_N"]:
    """The values of all processes; their number may differ from process to process."""
    count = values.new_tensor([len(values)], dtype=torch.long)
    sizes = [int(size) for size in _from_all(count)]
    rows = _from_all(nn.functional.pad(values, (0, max(sizes) - len(values))))
    return torch.cat([row[:size] for row, size in zip(rows, sizes, strict=True)])


def _from_all(x: Tensor) -> list[Tensor]:
    """`x` of each process, in order of rank; all have the same shape."""
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x)  # pyright: ignore[reportUnknownMemberType] - torch does not type it
    return parts


def _divergences(
    x: Float[Tensor, "B M E"],
    x_mask: Bool[Tensor, "B M"],
    y: Float[Tensor, "B N E"],
    y_mask: Bool[Tensor, "B N"],
    sigma: float | Literal["median"],
    gather: bool = False,
    weights: Float[Tensor, "B N"] | None = None,
) -> Float[Tensor, " B"]:
    """Divergence of the clouds of each clip; a clip without points has no finite one."""
    x_weights, y_weights = x_mask.to(x.dtype), y_mask.to(y.dtype)
    center = masked_mean(y, y_mask)[:, None].detach()
    x, y = x - center, y - center
    xx, yy, xy = _squared(x, x), _squared(y, y), _squared(x, y)
    xx_pairs = x_mask[:, :, None] & x_mask[:, None, :]
    yy_pairs = y_mask[:, :, None] & y_mask[:, None, :]
    xy_pairs = x_mask[:, :, None] & y_mask[:, None, :]
    if sigma == "median":
        width = median_width(xy, xy_pairs, gather)
    else:
        width = xx.new_tensor(float(sigma) ** 2)
    if weights is not None:
        y_weights = y_weights * weights.to(y.dtype)
    log_x, log_y = _log_shares(x_weights), _log_shares(y_weights)
    within_x = _log_mean_kernel(xx, xx_pairs, width, log_x, log_x)
    within_y = _log_mean_kernel(yy, yy_pairs, width, log_y, log_y)
    return divergence(within_x, within_y, _log_mean_kernel(xy, xy_pairs, width, log_x, log_y))


def _log_shares(weights: Float[Tensor, "B N"]) -> Float[Tensor, "B N"]:
    """Logarithms of the share of each point in its cloud."""
    return weights.log() - weights.sum(1, keepdim=True).log()


def _squared(x: Float[Tensor, "B M E"], y: Float[Tensor, "B N E"]) -> Float[Tensor, "B M N"]:
    """Squared distances by the dot-product identity; clouds near the origin keep their digits."""
    norms = x.square().sum(-1)[:, :, None] + y.square().sum(-1)[:, None, :]
    return (norms - 2 * x @ y.transpose(1, 2)).clamp(min=0)


def _log_mean_kernel(
    squared: Float[Tensor, "B M N"],
    pairs: Bool[Tensor, "B M N"],
    width: Float[Tensor, ""],
    log_x: Float[Tensor, "B M"],
    log_y: Float[Tensor, "B N"],
) -> Float[Tensor, " B"]:
    """log of the mean kernel over the pairs, weighted by the shares of their two points."""
    exponent = log_kernel(squared, width) + log_x[:, :, None] + log_y[:, None, :]
    return exponent.masked_fill(~pairs, -torch.inf).flatten(1).logsumexp(1)
