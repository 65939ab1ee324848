"""The quantities of the modality gap as plain data: name, range, direction, formula, source.

The report, the web page and the table in docs/gap.md are all written from `QUANTITIES`.
"""

import math
from dataclasses import dataclass

INFINITY = math.inf


@dataclass(frozen=True)
class Definition:
    """Definition of a quantity: range for unit vectors, which way is better, formula, source."""

    name: str
    title: str
    low: float
    high: float
    direction: str
    formula: str
    meaning: str
    source: str
    scale_free: bool = True

    def range_for(self, normalized: bool) -> tuple[float, float]:
        """The range; without an upper end if it depends on the length of the vectors."""
        return self.low, self.high if normalized or self.scale_free else INFINITY


_LIANG = "Liang et al. 2022, arXiv 2203.02053"
_LAMB = "LAMB, arXiv 2601.04658, Table 2"
_RECALL = "Karpathy and Fei-Fei 2015, arXiv 1412.2306"
_RATIO = "earwitness, against collapse"
_COSINE = "cosine criterion of Diffusion-Link, arXiv 2510.11330"

QUANTITIES: tuple[Definition, ...] = (
    Definition(
        "paired_cosine",
        "paired cosine",
        -1.0,
        1.0,
        "up",
        "mean_i cos(x_i, y_i)",
        "How similar a sound and its own caption are.",
        _COSINE,
    ),
    Definition(
        "unpaired_cosine",
        "unpaired cosine",
        -1.0,
        1.0,
        "down",
        "mean_{i != j} cos(x_i, y_j)",
        "How similar a sound and another clip's caption are.",
        _COSINE,
    ),
    Definition(
        "margin",
        "margin",
        -2.0,
        2.0,
        "up",
        "paired cosine - unpaired cosine",
        "How much more a sound resembles its own caption than another.",
        _COSINE,
    ),
    Definition(
        "centroid_distance",
        "centroid distance",
        0.0,
        2.0,
        "down",
        "||mean(x) - mean(y)||",
        "How far the centroid of the sounds is from the centroid of the captions.",
        _LIANG,
        scale_free=False,
    ),
    Definition(
        "paired_l2",
        "paired L2 distance",
        0.0,
        2.0,
        "down",
        "mean_i ||x_i - y_i||",
        "How far a sound is from its own caption.",
        "LAMB, arXiv 2601.04658, Table 2 (there without normalization)",
        scale_free=False,
    ),
    Definition(
        "frechet",
        "Frechet distance",
        0.0,
        4.0,
        "down",
        "||mean(x) - mean(y)||^2 + tr(S_x + S_y - 2 (S_x S_y)^(1/2))",
        "How far apart the two clouds are if each is summarized by its mean and covariance S.",
        "Dowson and Landau 1982; Heusel et al. 2017, arXiv 1706.08500",
        scale_free=False,
    ),
    Definition(
        "rmg",
        "relative modality gap (RMG)",
        0.0,
        1.0,
        "down",
        "d_xy / ((d_xx + d_yy) / 2 + d_xy), d = 1 - cos; xy over pairs, xx and yy over i != j",
        "The distance within a pair, relative to the typical distance within one modality.",
        "Schrodi et al. 2024, arXiv 2404.07983",
    ),
    Definition(
        "cs_divergence",
        "Cauchy-Schwarz divergence",
        0.0,
        INFINITY,
        "down",
        "log mean k(x,x') + log mean k(y,y') - 2 log mean k(x,y), k = exp(-d^2 / 2 sigma^2)",
        "How differently the two clouds are distributed, regardless of the pairing.",
        "Jenssen et al. 2006; the divergence that LAMB minimizes, with the same kernel width",
    ),
    Definition(
        "mmd",
        "maximum mean discrepancy (MMD)",
        0.0,
        math.sqrt(2.0),
        "down",
        "sqrt(mean k(x,x') + mean k(y,y') - 2 mean k(x,y)), k = exp(-d^2 / 2 sigma^2)",
        "The distance between the two clouds' means in the kernel's feature space.",
        "Gretton et al. 2012, JMLR 13, eq. 5",
    ),
    Definition(
        "separability",
        "held-out linear separability",
        0.0,
        1.0,
        "down",
        "accuracy of logistic regression, sound or caption?, on clips it was not fitted to",
        "How well a linear classifier separates sounds from captions; 0.5 is guessing.",
        "classifier two-sample test, Lopez-Paz and Oquab 2017, arXiv 1610.06545",
    ),
    Definition(
        "audio_to_text_r1",
        "sound to caption R@1",
        0.0,
        1.0,
        "up",
        "mean_i [rank of the best own caption of i <= 1]",
        "Share of sounds whose nearest caption is one of their own.",
        _RECALL,
    ),
    Definition(
        "audio_to_text_r5",
        "sound to caption R@5",
        0.0,
        1.0,
        "up",
        "mean_i [rank of the best own caption of i <= 5]",
        "Share of sounds with one of their captions among the five nearest.",
        _RECALL,
    ),
    Definition(
        "audio_to_text_r10",
        "sound to caption R@10",
        0.0,
        1.0,
        "up",
        "mean_i [rank of the best own caption of i <= 10]",
        "Share of sounds with one of their captions among the ten nearest.",
        _RECALL,
    ),
    Definition(
        "text_to_audio_r1",
        "caption to sound R@1",
        0.0,
        1.0,
        "up",
        "mean over captions c of [rank of its sound <= 1]",
        "Share of captions whose nearest sound is their own.",
        _RECALL,
    ),
    Definition(
        "text_to_audio_r5",
        "caption to sound R@5",
        0.0,
        1.0,
        "up",
        "mean over captions c of [rank of its sound <= 5]",
        "Share of captions with their sound among the five nearest.",
        _RECALL,
    ),
    Definition(
        "text_to_audio_r10",
        "caption to sound R@10",
        0.0,
        1.0,
        "up",
        "mean over captions c of [rank of its sound <= 10]",
        "Share of captions with their sound among the ten nearest.",
        _RECALL,
    ),
    Definition(
        "gram_correlation",
        "Gram correlation",
        -1.0,
        1.0,
        "up",
        "Pearson correlation over i != j of cos(x_i, x_j) and cos(y_i, y_j)",
        "Whether similar sounds have similar captions.",
        "Kriegeskorte et al. 2008 (representational similarity); Diffusion-Link's topology",
    ),
    Definition(
        "variance_ratio",
        "variance ratio",
        0.0,
        INFINITY,
        "to 1",
        "tr Cov(x) / tr Cov(y)",
        "The spread of the sounds relative to the spread of the captions; near 0 is collapse.",
        _RATIO,
    ),
)

TOKEN_QUANTITIES: tuple[Definition, ...] = (
    Definition(
        "token_l2",
        "token L2 distance",
        0.0,
        INFINITY,
        "down",
        "mean_i ||z_a,i - z_t,i||, z = mean over tokens, not normalized",
        "How far a clip's audio tokens are from its caption's tokens, in the LLM's own units.",
        _LAMB,
    ),
    Definition(
        "token_cosine",
        "token cosine",
        -1.0,
        1.0,
        "up",
        "mean_i cos(z_a,i, z_t,i)",
        "How similar a clip's audio tokens and its caption's tokens are in direction.",
        _LAMB,
    ),
)

BY_NAME = {definition.name: definition for definition in QUANTITIES + TOKEN_QUANTITIES}


def written_range(low: float, high: float) -> str:
    """The range as text, such as `0 to 2` or `0 upwards`."""
    return f"{low:g} upwards" if math.isinf(high) else f"{low:g} to {high:.4g}"


def markdown_table() -> str:
    """The table of all quantities in Markdown, as shown in docs/gap.md."""
    lines = ["| quantity | formula | range | better | source |", "|---|---|---|---|---|"]
    for d in QUANTITIES + TOKEN_QUANTITIES:
        formula = d.formula.replace("|", "\\|")
        span = written_range(d.low, d.high)
        lines.append(
            f"| `{d.name}`: {d.meaning} | `{formula}` | {span} | {d.direction} | {d.source} |"
        )
    return "\n".join(lines) + "\n"
