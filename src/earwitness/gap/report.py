"""`measure` and `token_gap`: every quantity of the modality gap with its interval, and warnings."""

from dataclasses import asdict, dataclass
from math import isinf
from typing import TYPE_CHECKING

import numpy as np

from earwitness.errors import ConfigError, DataError
from earwitness.gap.clouds import PairedClouds, checked_vectors, draw_clips, make_pairs, unit_rows
from earwitness.gap.kernels import kernel_quantities, median_width
from earwitness.gap.linear import linear_quantities
from earwitness.gap.moments import moment_quantities
from earwitness.gap.quantities import BY_NAME, QUANTITIES, TOKEN_QUANTITIES
from earwitness.gap.retrieval import retrieval_quantities
from earwitness.gap.separability import separability_quantities
from earwitness.statistics import Estimate, Resamples

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike

BEFORE, AFTER, CHANGE = "before", "after", "change"


@dataclass(frozen=True)
class Quantity:
    """One number with its 95 % interval `low` to `high`, and what is needed to interpret it.

    `cloud` is `before` (the sounds as given), `after` (the bridged sounds) or `change`
    (after - before). `clips` is the number of clips used; `interval` says how the interval was
    computed.
    """

    name: str
    value: float
    low: float
    high: float
    range: tuple[float, float]
    direction: str
    source: str
    cloud: str = BEFORE
    clips: int = 0
    interval: str = ""


@dataclass(frozen=True)
class GapReport:
    """All quantities of one comparison, with warnings in plain sentences."""

    rows: tuple[Quantity, ...]
    warnings: tuple[str, ...]
    clips: int
    captions: int
    width: int
    normalized: bool
    seed: int
    kernel_width: float | None = None

    def quantity(self, name: str, cloud: str = BEFORE) -> Quantity:
        """The row with that name and cloud. Raises ConfigError, listing the available rows."""
        for row in self.rows:
            if row.name == name and row.cloud == cloud:
                return row
        known = ", ".join(dict.fromkeys(row.name for row in self.rows))
        raise ConfigError(f"no quantity {name!r} ({cloud}) in this report; it has {known}")

    def value(self, name: str, cloud: str = BEFORE) -> float:
        """The value with that name and cloud."""
        return self.quantity(name, cloud).value

    def clouds(self) -> tuple[str, ...]:
        """The clouds measured: `before` alone, or `before`, `after` and `change`."""
        return tuple(dict.fromkeys(row.cloud for row in self.rows))

    def as_dict(self) -> dict[str, object]:
        """The report as plain JSON values; an open end of a range is null."""
        data = asdict(self)
        for row in data["rows"]:
            row["range"] = [None if isinf(end) else end for end in row["range"]]
        return data


def _quantity(name: str, estimate: Estimate, cloud: str, normalized: bool) -> Quantity:
    definition = BY_NAME[name]
    lowest, highest = definition.range_for(normalized)
    if cloud == CHANGE:
        lowest, highest = lowest - highest, highest - lowest
    low, high = estimate.interval()
    return Quantity(
        name=name,
        value=float(np.clip(estimate.value, lowest, highest)),
        low=float(np.clip(low, lowest, highest)),
        high=float(np.clip(high, lowest, highest)),
        range=(lowest, highest),
        direction=definition.direction,
        source=definition.source,
        cloud=cloud,
        clips=estimate.clips,
        interval=estimate.how(),
    )


def _estimates(
    pairs: PairedClouds, resamples: Resamples, sigma: float, seed: int
) -> dict[str, Estimate]:
    bootstrap = len(resamples.counts)
    found = linear_quantities(pairs, resamples)
    found |= moment_quantities(pairs, seed)
    found |= kernel_quantities(pairs, sigma, bootstrap, seed)
    found |= separability_quantities(pairs, bootstrap, seed)
    found |= retrieval_quantities(pairs, resamples)
    return {definition.name: found[definition.name] for definition in QUANTITIES}


def _rows(
    before: "Mapping[str, Estimate]", after: "Mapping[str, Estimate] | None", normalized: bool
) -> tuple[Quantity, ...]:
    rows = []
    for name, estimate in before.items():
        rows.append(_quantity(name, estimate, BEFORE, normalized))
        if after is not None:
            change = after[name].change_from(estimate)
            rows.append(_quantity(name, after[name], AFTER, normalized))
            rows.append(_quantity(name, change, CHANGE, normalized))
    return tuple(rows)


def _collapse_warnings(
    before: "Mapping[str, Estimate]", after: "Mapping[str, Estimate] | None"
) -> list[str]:
    """Warnings of a cloud that is almost a point, or a centroid that moved closer only because the
    cloud shrank.

    The limits are ours: a variance ratio under 0.05 is a point; under 0.5 it is a collapse if it
    fell, the centroid distance fell, and the margin or retrieval (sound to caption, R@10) fell too.
    """

    def now(name: str) -> float:
        return (after or before)[name].value

    spread, recall = now("variance_ratio"), now("audio_to_text_r10")
    which = "audio" if after is None else "bridged"
    if spread < 0.05:
        return [
            f"collapse: the {which} cloud has {spread:.1%} of the captions' variance, so it is "
            "almost one point; its centroid distance and separability say nothing about the bridge"
        ]
    if after is None:
        return []
    fell = after["centroid_distance"].value < before["centroid_distance"].value
    shrank = spread < min(0.5, before["variance_ratio"].value)
    was, margin_was = before["audio_to_text_r10"].value, before["margin"].value
    if fell and shrank and (recall < was or now("margin") < margin_was):
        return [
            f"collapse: the centroid distance fell, but the bridged cloud has only {spread:.0%} of "
            f"the captions' variance; R@10 went from {was:.3f} to {recall:.3f} and the margin from "
            f"{margin_was:.3f} to {now('margin'):.3f}: the bridged vectors near the mean caption"
        ]
    return []


def _sampling_warnings(pairs: PairedClouds) -> list[str]:
    width = pairs.audio.shape[1]
    if pairs.clips >= 2 * width:
        return []
    return [
        f"{pairs.clips} clips for {width} numbers per vector: the Frechet distance is mostly "
        "sampling noise below twice as many clips as numbers; compare it only at equal clip counts"
    ]


def _check_settings(bootstrap: int, seed: int) -> None:
    if not 2 <= bootstrap <= 100_000:
        raise ConfigError(f"bootstrap {bootstrap}: expected 2 to 100000 resamples")
    if seed < 0:
        raise ConfigError(f"seed {seed}: expected 0 or more")


def measure(
    audio: "ArrayLike",
    text: "ArrayLike",
    *,
    owner: "ArrayLike | None" = None,
    bridged: "ArrayLike | None" = None,
    seed: int = 0,
    bootstrap: int = 1000,
    normalize: bool = True,
) -> GapReport:
    """Every quantity of `QUANTITIES` between sounds and captions, before and after a bridge.

    `audio` is [N, C], `text` [M, C]; caption m belongs to sound `owner[m]`, by default to sound m.
    `bridged` is [N, C], the sounds after a bridge. With `normalize`, every vector is first scaled
    to unit length; cosines, RMG, Gram correlation and retrieval always do so.
    Raises DataError for arrays that do not match, ConfigError for settings out of range.
    """
    _check_settings(bootstrap, seed)
    pairs = make_pairs(audio, text, owner, normalize=normalize)
    resamples = draw_clips(pairs.clips, bootstrap, seed)
    sigma = median_width(pairs, seed)
    moved = None
    if bridged is not None:
        moved = pairs.with_audio(bridged, name="bridged", normalize=normalize)
    before = _estimates(pairs, resamples, sigma, seed)
    after = None if moved is None else _estimates(moved, resamples, sigma, seed)
    return GapReport(
        rows=_rows(before, after, normalize),
        warnings=tuple(_collapse_warnings(before, after) + _sampling_warnings(pairs)),
        clips=pairs.clips,
        captions=pairs.captions,
        width=pairs.audio.shape[1],
        normalized=normalize,
        seed=seed,
        kernel_width=sigma,
    )


def token_gap(
    z_a_mean: "ArrayLike",
    z_t_mean: "ArrayLike",
    *,
    z_a_before: "ArrayLike | None" = None,
    seed: int = 0,
    bootstrap: int = 1000,
) -> GapReport:
    """Mean L2 distance and cosine of pooled audio tokens and caption tokens, not normalized.

    `z_a_mean` and `z_t_mean` are [N, E]: the mean over a clip's audio tokens, and over its
    caption's token embeddings. With `z_a_before` (the same clips before alignment) the report has
    before, after and change. LAMB, Table 2; mean pooling is our interpretation.
    """
    _check_settings(bootstrap, seed)
    text = checked_vectors(z_t_mean, "z_t_mean")
    clouds = {"z_a_mean": checked_vectors(z_a_mean, "z_a_mean")}
    if z_a_before is not None:
        clouds["z_a_before"] = checked_vectors(z_a_before, "z_a_before")
    resamples = draw_clips(len(text), bootstrap, seed)
    found = {name: _token_estimates(z_a, text, name, resamples) for name, z_a in clouds.items()}
    before, after = found["z_a_mean"], None
    if z_a_before is not None:
        before, after = found["z_a_before"], before
    return GapReport(
        rows=_rows(before, after, normalized=False),
        warnings=(),
        clips=len(text),
        captions=len(text),
        width=text.shape[1],
        normalized=False,
        seed=seed,
    )


def _token_estimates(
    z_a: np.ndarray, z_t: np.ndarray, name: str, resamples: Resamples
) -> dict[str, Estimate]:
    if z_a.shape != z_t.shape:
        raise DataError(
            f"{name} has the shape {z_a.shape} and z_t_mean {z_t.shape}; expected equal shapes"
        )
    difference = z_a.astype(np.float64) - z_t
    cosines = np.sum(unit_rows(z_a, name) * unit_rows(z_t, "z_t_mean"), axis=1, dtype=np.float64)
    values = np.stack([np.linalg.norm(difference, axis=1), cosines], axis=1)
    drawn = resamples.sums(values) / len(values)
    return {
        definition.name: Estimate(float(values[:, i].mean()), drawn[:, i], len(values))
        for i, definition in enumerate(TOKEN_QUANTITIES)
    }
