"""LAMB's Cross-Modal Aligner (arXiv 2601.04658): losses that pull audio tokens into the LLM's
text-embedding space.

Cauchy-Schwarz divergence (`earwitness.cauchy_schwarz`) between the clouds of audio and caption
tokens, per clip and over the batch, and InfoNCE between their means. LAMB gives neither the kernel
width nor the pooling: we use the median width, detached, and means over tokens. In training on
several processes a batch is that of all of them (`gather`).
"""

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
    """Kernel width and scaling of the divergences, start of the InfoNCE temperature."""

    sigma: PositiveFloat | Literal["median"] = "median"
    l2_normalize: bool = False
    temperature: PositiveFloat = 0.07
    gather: bool = True
    """in training on several processes, take the losses over the clips of all of them"""


class CrossModalAligner(nn.Module):
    """The three alignment losses of a batch; its only parameter is the InfoNCE temperature."""

    def __init__(self, config: AlignerConfig) -> None:
        super().__init__()
        self.config = config
        self.log_scale = nn.Parameter(torch.tensor(-math.log(config.temperature)))

    def forward(
        self,
        z_a: Float[Tensor, "B G E"],
        a_mask: Bool[Tensor, "B G"],
        z_t: Float[Tensor, "B L E"],
        t_mask: Bool[Tensor, "B L"],
        clip: Int[Tensor, " B"],
    ) -> dict[str, Float[Tensor, ""]]:
        """`cs_global`, `cs_token` and `infonce`; captions of the same `clip` are not negatives for
        each other.

        In float32 even under autocast: distances of LLM-sized vectors lose their digits in half
        precision.
        """
        with torch.autocast(z_a.device.type, enabled=False):
            return self._losses(z_a.float(), a_mask, z_t.float(), t_mask, clip)

    def _losses(
        self,
        z_a: Float[Tensor, "B G E"],
        a_mask: Bool[Tensor, "B G"],
        z_t: Float[Tensor, "B L E"],
        t_mask: Bool[Tensor, "B L"],
        clip: Int[Tensor, " B"],
    ) -> dict[str, Float[Tensor, ""]]:
        audio, text = masked_mean(z_a, a_mask), masked_mean(z_t, t_mask)
        gather = self.config.gather and self.training and several_processes()
        if gather:
            audio, text, clip = gather_rows(audio), gather_rows(text), gather_rows(clip)
        scale = self.log_scale.clamp(0.0, math.log(100.0)).exp()
        infonce = info_nce(audio, text, scale, clip)
        if self.config.l2_normalize:
            z_a, z_t, audio, text = (
                nn.functional.normalize(x, dim=-1) for x in (z_a, z_t, audio, text)
            )
        return {
            "cs_global": cs_divergence(audio, text, self.config.sigma),
            "cs_token": cs_token(z_a, a_mask, z_t, t_mask, self.config.sigma, gather),
            "infonce": infonce,
        }


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
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

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
) -> Float[Tensor, ""]:
    """Mean over clips of the divergence between a clip's audio tokens and its caption's tokens.

    LAMB, L_CS-token. Padding enters neither sums nor counts. The whole batch shares one median
    width, with `gather` the batches of all processes.
    """
    return _divergences(z_a, a_mask, z_t, t_mask, sigma, gather).mean()


def info_nce(
    audio: Float[Tensor, "B E"],
    text: Float[Tensor, "B E"],
    scale: Float[Tensor, ""] | float,
    clip: Int[Tensor, " B"] | None = None,
) -> Float[Tensor, ""]:
    """Symmetric InfoNCE on cosines times `scale` (1 / temperature); 0 for one pair, log B for equal
    similarities.

    LAMB, L_InfoNCE; the symmetric CLIP form is our reading. Pairs of one `clip` are not each
    other's negatives.
    """
    unit = nn.functional.normalize
    similarity = scale * unit(audio, dim=-1) @ unit(text, dim=-1).T
    if clip is not None:
        same = (clip[:, None] == clip[None, :]) & ~torch.eye(
            len(clip), dtype=torch.bool, device=clip.device
        )
        similarity = similarity.masked_fill(same, -torch.inf)
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
    counts = [torch.empty_like(count) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, count)
    sizes = torch.cat(counts).tolist()
    padded = nn.functional.pad(values, (0, max(sizes) - len(values)))
    rows = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(rows, padded)
    return torch.cat([row[:size] for row, size in zip(rows, sizes, strict=True)])


def _divergences(
    x: Float[Tensor, "B M E"],
    x_mask: Bool[Tensor, "B M"],
    y: Float[Tensor, "B N E"],
    y_mask: Bool[Tensor, "B N"],
    sigma: float | Literal["median"],
    gather: bool = False,
) -> Float[Tensor, " B"]:
    xx, yy, xy = _squared(x, x), _squared(y, y), _squared(x, y)
    xx_pairs = x_mask[:, :, None] & x_mask[:, None, :]
    yy_pairs = y_mask[:, :, None] & y_mask[:, None, :]
    xy_pairs = x_mask[:, :, None] & y_mask[:, None, :]
    if sigma == "median":
        width = median_width(xy, xy_pairs, gather)
    else:
        width = xx.new_tensor(float(sigma) ** 2)
    within_x = _log_mean_kernel(xx, xx_pairs, width)
    within_y = _log_mean_kernel(yy, yy_pairs, width)
    return divergence(within_x, within_y, _log_mean_kernel(xy, xy_pairs, width))


def _squared(x: Float[Tensor, "B M E"], y: Float[Tensor, "B N E"]) -> Float[Tensor, "B M N"]:
    """Squared distances by the dot-product identity, centered first so that clouds far from the
    origin keep their digits.
    """
    center = y.mean((1), keepdim=True).detach()
    x, y = x - center, y - center
    norms = x.square().sum(-1)[:, :, None] + y.square().sum(-1)[:, None, :]
    return (norms - 2 * x @ y.transpose(1, 2)).clamp(min=0)


def _log_mean_kernel(
    squared: Float[Tensor, "B M N"], pairs: Bool[Tensor, "B M N"], width: Float[Tensor, ""]
) -> Float[Tensor, " B"]:
    exponent = log_kernel(squared, width).masked_fill(~pairs, -torch.inf)
    return exponent.flatten(1).logsumexp(1) - pairs.sum((1, 2)).to(squared.dtype).log()
