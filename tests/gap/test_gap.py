"""The gap quantities against closed forms, double loops and constructed clouds."""

import json
import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from earwitness import gap
from earwitness.errors import ConfigError, DataError
from earwitness.gap import kernels, linear, moments, retrieval, separability
from earwitness.gap.clouds import make_pairs
from earwitness.lamb.aligner import cs_divergence
from earwitness.statistics import Estimate, Resamples

ROOT = Path(__file__).resolve().parents[2]


def cloud(n: int, width: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, width)).astype(np.float32)


def several(n: int = 30, width: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sounds, captions and owners; clips have one to three captions, in mixed order."""
    rng = np.random.default_rng(7)
    owner = rng.permutation(np.repeat(np.arange(n), 1 + np.arange(n) % 3))
    audio = cloud(n, width, 1)
    text = audio[owner] + 0.8 * cloud(len(owner), width, 2) + 0.5
    return audio, text, owner


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def random_rotation(width: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(3).standard_normal((width, width)))[0]


def exact_gaussian(mean: list[float], scales: list[float], seed: int) -> np.ndarray:
    """Points whose sample mean and (maximum-likelihood) covariance are exactly those asked for."""
    x = np.random.default_rng(seed).standard_normal((400, len(mean)))
    x -= x.mean(axis=0)
    x = x @ np.linalg.inv(np.linalg.cholesky(x.T @ x / len(x))).T
    return x * scales + mean


def values(report: gap.GapReport, which: str = "before") -> dict[str, float]:
    return {row.name: row.value for row in report.rows if row.cloud == which}


def test_frechet_of_two_gaussians_is_the_closed_form() -> None:
    x = exact_gaussian([0.0, 1.0, 5.0], [1.0, 2.0, 0.5], 0)
    y = exact_gaussian([3.0, 1.0, 1.0], [2.0, 2.0, 1.5], 1)
    pairs = make_pairs(x, y, None, normalize=False)
    expected = 9.0 + 16.0 + 1.0 + 0.0 + 1.0
    assert moments.moment_quantities(pairs, 0)["frechet"].value == pytest.approx(expected, rel=1e-5)


def test_frechet_with_several_captions_equals_the_matrix_square_root() -> None:
    audio, text, owner = several()
    pairs = make_pairs(audio, text, owner, normalize=False)
    weight = 1.0 / np.bincount(owner)[owner]
    mean = np.average(text, axis=0, weights=weight)
    cov_y = np.cov(text.T, aweights=weight, bias=True)
    cov_x = np.cov(audio.T, bias=True)
    root = sqrtm(cov_x @ cov_y).real
    expected = np.sum((audio.mean(axis=0) - mean) ** 2) + np.trace(cov_x + cov_y - 2.0 * root)
    assert moments.moment_quantities(pairs, 0)["frechet"].value == pytest.approx(expected, rel=1e-4)


def test_identical_clouds_have_no_gap() -> None:
    x = cloud(60)
    found = values(gap.measure(x, x, bootstrap=20))
    for name in ("centroid_distance", "paired_l2", "frechet", "rmg", "cs_divergence", "mmd"):
        assert found[name] == pytest.approx(0.0, abs=2e-3), name
    for name in ("paired_cosine", "gram_correlation", "variance_ratio", "audio_to_text_r1"):
        assert found[name] == pytest.approx(1.0, abs=1e-5), name
    assert found["text_to_audio_r1"] == 1.0
    assert found["separability"] == 0.5


def test_shift_moves_every_distance_by_its_length() -> None:
    x = cloud(80).astype(np.float64)
    shift = np.array([3.0, 0.0, 4.0, 0.0, 0.0, 0.0])
    found = values(gap.measure(x, x + shift, normalize=False, bootstrap=20))
    assert found["centroid_distance"] == pytest.approx(5.0, rel=1e-5)
    assert found["paired_l2"] == pytest.approx(5.0, rel=1e-5)
    assert found["frechet"] == pytest.approx(25.0, rel=1e-5)
    assert found["variance_ratio"] == pytest.approx(1.0, rel=1e-5)


def test_rotating_both_clouds_changes_nothing() -> None:
    audio, text, owner = several()
    turn = random_rotation(audio.shape[1])
    plain = values(gap.measure(audio, text, owner=owner, bootstrap=5))
    turned = values(gap.measure(audio @ turn, text @ turn, owner=owner, bootstrap=5))
    # Standardised logistic regression looks at the axes, so it alone may move.
    for name in plain.keys() - {"separability"}:
        assert turned[name] == pytest.approx(plain[name], abs=1e-4), name


def test_rotating_one_cloud_keeps_its_topology_but_not_its_place() -> None:
    text = cloud(200, 16)
    found = values(gap.measure(text @ random_rotation(16), text, bootstrap=5))
    assert found["gram_correlation"] == pytest.approx(1.0, abs=1e-5)
    assert found["variance_ratio"] == pytest.approx(1.0, abs=1e-2)
    assert abs(found["paired_cosine"]) < 0.3
    assert found["audio_to_text_r1"] < 0.1


def test_order_of_clips_and_captions_does_not_matter() -> None:
    audio, text, owner = several()
    rng = np.random.default_rng(0)
    clips, lines = rng.permutation(len(audio)), rng.permutation(len(text))
    place = np.argsort(clips)
    plain = values(gap.measure(audio, text, owner=owner, bootstrap=5))
    mixed = values(gap.measure(audio[clips], text[lines], owner=place[owner[lines]], bootstrap=5))
    for name in plain.keys() - {"separability"}:
        assert mixed[name] == pytest.approx(plain[name], abs=1e-5), name


def test_cosines_rmg_and_gram_equal_double_loops() -> None:
    audio, text, owner = several()
    n, u, v = len(audio), unit(audio), unit(text)
    own = [v[owner == i] for i in range(n)]
    paired = np.mean([np.mean(own[i] @ u[i]) for i in range(n)])
    others = [(i, j) for i, j in product(range(n), repeat=2) if i != j]
    unpaired = np.mean([np.mean(own[j] @ u[i]) for i, j in others])
    within_x = np.array([u[i] @ u[j] for i, j in others])
    within_y = np.array([np.mean(own[i] @ own[j].T) for i, j in others])
    inside = (np.mean(1 - within_x) + np.mean(1 - within_y)) / 2
    found = values(gap.measure(audio, text, owner=owner, bootstrap=5))
    assert found["paired_cosine"] == pytest.approx(paired, abs=1e-6)
    assert found["unpaired_cosine"] == pytest.approx(unpaired, abs=1e-6)
    assert found["margin"] == pytest.approx(paired - unpaired, abs=1e-6)
    assert found["rmg"] == pytest.approx((1 - paired) / (inside + 1 - paired), abs=1e-6)
    correlation = np.corrcoef(within_x, within_y)[0, 1]
    assert found["gram_correlation"] == pytest.approx(correlation, abs=1e-5)


def test_rmg_of_two_orthogonal_pairs_by_hand() -> None:
    audio = np.eye(4, dtype=np.float32)[:2]
    text = np.eye(4, dtype=np.float32)[2:]
    # Every distance 1 - cos is 1: 1 / (1 + 1).
    pairs = make_pairs(audio, text, None, normalize=True)
    draws = Resamples.draw(2, 2, 0, pairs=True)
    assert linear.linear_quantities(pairs, draws)["rmg"].value == pytest.approx(0.5)


def test_kernel_quantities_equal_double_loops() -> None:
    audio, text, owner = several(12)
    pairs = make_pairs(audio, text, owner, normalize=False)
    sigma = 1.7

    def mean(x: np.ndarray, a: np.ndarray, y: np.ndarray, b: np.ndarray) -> float:
        return sum(
            a[i] * b[j] * math.exp(-float(np.sum((x[i] - y[j]) ** 2)) / (2 * sigma**2))
            for i in range(len(x))
            for j in range(len(y))
        )

    a = np.full(12, 1 / 12)
    b = 1.0 / np.bincount(owner)[owner] / 12
    x, y = audio.astype(np.float64), text.astype(np.float64)
    xx, yy, xy = mean(x, a, x, a), mean(y, b, y, b), mean(x, a, y, b)
    found = kernels.kernel_quantities(pairs, sigma, 5, 0)
    expected = math.log(xx) + math.log(yy) - 2 * math.log(xy)
    assert found["cs_divergence"].value == pytest.approx(expected, rel=1e-6)
    assert found["mmd"].value == pytest.approx(math.sqrt(xx + yy - 2 * xy), rel=1e-6)


def test_kernel_width_is_the_median_rule() -> None:
    x, y = cloud(9), cloud(9, seed=1) + 1.0
    pairs = make_pairs(x, y, None, normalize=False)
    squared = [float(np.sum((a - b) ** 2)) for a in x for b in y]
    assert kernels.median_width(pairs, 0) == pytest.approx(math.sqrt(np.median(squared) / 2))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("shift", [0.0, 0.5, 3.0])
def test_report_and_aligner_agree_on_the_divergence(shift: float, normalize: bool) -> None:
    x, y = cloud(40), cloud(40, seed=1) + np.float32(shift)
    pairs = make_pairs(x, y, None, normalize=normalize)
    sigma = kernels.median_width(pairs, 0)
    found = kernels.kernel_quantities(pairs, sigma, 1, 0)["cs_divergence"].value
    audio, text = torch.from_numpy(pairs.audio).double(), torch.from_numpy(pairs.text).double()
    assert found == pytest.approx(float(cs_divergence(audio, text, "median")), rel=1e-6)


def test_kernel_quantities_stay_finite_for_clouds_far_apart() -> None:
    x = cloud(20)
    pairs = make_pairs(x, x + 1e4, None, normalize=False)
    found = kernels.kernel_quantities(pairs, 1.0, 5, 0)
    assert np.isfinite(found["cs_divergence"].value)
    assert found["cs_divergence"].value > 100.0


def test_separability_is_half_for_one_distribution_and_one_for_two() -> None:
    x, y = cloud(400, 4), cloud(400, 4, seed=1)
    same = make_pairs(x, y, None, normalize=False)
    apart = make_pairs(x + 20.0, y, None, normalize=False)
    assert separability.separability_quantities(same, 5, 0)["separability"].value == pytest.approx(
        0.5, abs=0.06
    )
    assert separability.separability_quantities(apart, 5, 0)["separability"].value == 1.0


def test_separability_is_held_out() -> None:
    # More numbers than clips: any labels can be fitted, none can be foretold.
    pairs = make_pairs(cloud(40, 300), cloud(40, 300, seed=1), None, normalize=True)
    found = separability.separability_quantities(pairs, 5, 0)["separability"]
    assert found.value == pytest.approx(0.5, abs=0.2)


def test_retrieval_equals_sorting(monkeypatch: pytest.MonkeyPatch) -> None:
    audio, text, owner = several(90)
    monkeypatch.setattr(retrieval, "_ROWS", 40)
    monkeypatch.setattr(retrieval, "_COLUMNS", 33)
    pairs = make_pairs(audio, text, owner, normalize=True)
    draws = Resamples.draw(90, 5, 0)
    found = retrieval.retrieval_quantities(pairs, draws)
    cosine = unit(audio) @ unit(text).T
    for k in (1, 5, 10):
        nearest_text = np.argsort(-cosine, axis=1)[:, :k]
        a2t = np.mean([np.any(owner[nearest_text[i]] == i) for i in range(90)])
        nearest_audio = np.argsort(-cosine, axis=0)[:k]
        t2a = np.mean([owner[m] in nearest_audio[:, m] for m in range(len(text))])
        assert found[f"audio_to_text_r{k}"].value == pytest.approx(a2t), k
        assert found[f"text_to_audio_r{k}"].value == pytest.approx(t2a), k


def test_byte_counts_do_not_overflow() -> None:
    assert retrieval._column_counts(np.ones((1000, 3), bool)).tolist() == [1000] * 3


def test_constant_cloud_retrieves_by_chance() -> None:
    pairs = make_pairs(np.ones((100, 6)), cloud(100), None, normalize=True)
    from_audio, from_text = retrieval.hits(pairs)
    assert from_text[:, 2].mean() == pytest.approx(0.10)
    assert from_audio[:, 2].mean() == pytest.approx(0.10)


def test_constant_bridge_warns_of_collapse() -> None:
    text = cloud(100, 16) + 0.7
    audio = text + cloud(100, 16, seed=1) - 2.0
    constant = np.tile(text.mean(axis=0), (100, 1))
    report = gap.measure(audio, text, bridged=constant, bootstrap=20)
    assert report.value("centroid_distance", "after") < report.value("centroid_distance")
    assert report.value("variance_ratio", "after") == pytest.approx(0.0, abs=1e-6)
    assert any(said.startswith("collapse") for said in report.warnings)


def test_shrinking_bridge_warns_of_collapse_and_names_the_numbers() -> None:
    text = cloud(300, 16) + 0.7
    audio = text + 1.2 * cloud(300, 16, seed=1) - 1.5
    centred = audio - audio.mean(axis=0)
    drift = text.mean(axis=0) + 0.25 * centred + 0.1 * cloud(300, 16, seed=2)
    report = gap.measure(audio, text, bridged=drift, bootstrap=20)
    assert 0.05 < report.value("variance_ratio", "after") < 0.5
    assert any("R@10 went from" in said for said in report.warnings)


def test_good_bridge_does_not_warn() -> None:
    text = cloud(300, 16) + 0.7
    audio = text + cloud(300, 16, seed=1) - 1.5
    report = gap.measure(audio, text, bridged=text + 0.2 * cloud(300, 16, seed=2), bootstrap=20)
    assert report.warnings == ()


def test_few_clips_warn_of_the_frechet_distance() -> None:
    report = gap.measure(cloud(20, 16), cloud(20, 16, seed=1), bootstrap=5)
    assert any("Frechet" in said for said in report.warnings)


def test_one_resample_equals_the_definition_on_the_drawn_clips() -> None:
    audio, text, owner = several()
    n, u = len(audio), unit(audio)
    means = np.stack([unit(text)[owner == i].mean(axis=0) for i in range(n)])
    draws = Resamples.draw(n, 3, 5)
    found = linear.linear_quantities(make_pairs(audio, text, owner, normalize=True), draws)
    for k in range(3):
        drawn = np.repeat(np.arange(n), draws.counts[k])
        others = [means[j] @ u[i] for i in drawn for j in drawn if i != j]
        paired = np.mean([means[i] @ u[i] for i in drawn])
        centroid = np.linalg.norm(u[drawn].mean(axis=0) - means[drawn].mean(axis=0))
        assert found["unpaired_cosine"].draws[k] == pytest.approx(np.mean(others), abs=1e-5)
        assert found["paired_cosine"].draws[k] == pytest.approx(paired, abs=1e-5)
        assert found["centroid_distance"].draws[k] == pytest.approx(centroid, abs=1e-5)


def test_intervals_of_the_mean_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    truth, hits = 0.0, 0
    for trial in range(300):
        angle = rng.uniform(0.0, math.pi, 80)
        audio = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        text = np.tile([1.0, 0.0], (80, 1))
        pairs = make_pairs(audio, text, None, normalize=True)
        draws = Resamples.draw(80, 300, trial)
        low, high = linear.linear_quantities(pairs, draws)["paired_cosine"].interval()
        hits += low <= truth <= high
    assert 0.90 <= hits / 300 <= 0.99


def test_jackknife_error_equals_the_spread_over_new_samples() -> None:
    rng = np.random.default_rng(0)

    def estimate() -> Estimate:
        x = rng.standard_normal((400, 2)) + [1.0, 0.0]
        y = rng.standard_normal((400, 2)) * 1.5
        return moments.moment_quantities(make_pairs(x, y, None, normalize=False), 0)["frechet"]

    found = [estimate() for _ in range(80)]
    spread = np.std([one.value for one in found])
    widths = [np.diff(one.interval())[0] / (2 * 2.093) for one in found]
    assert np.median(widths) == pytest.approx(spread, rel=0.3)


def test_change_is_measured_on_the_same_clips() -> None:
    text = cloud(200, 8)
    audio = text + cloud(200, 8, seed=1)
    report = gap.measure(audio, text, bridged=0.5 * (audio + text), bootstrap=200)
    change = report.quantity("paired_cosine", "change")
    after, before = report.quantity("paired_cosine", "after"), report.quantity("paired_cosine")
    assert change.value == pytest.approx(after.value - before.value)
    assert change.low > 0.0
    assert report.quantity("audio_to_text_r1", "change").range == (-1.0, 1.0)


def test_unchanged_bridge_changes_nothing() -> None:
    audio, text, owner = several()
    report = gap.measure(audio, text, owner=owner, bridged=audio, bootstrap=20)
    assert all(
        row.value == row.low == row.high == 0.0 for row in report.rows if row.cloud == "change"
    )


def test_large_inputs_use_a_stated_number_of_clips() -> None:
    x = cloud(3500, 3)
    report = gap.measure(x, x + cloud(3500, 3, seed=1), bootstrap=5)
    assert report.quantity("mmd").clips == kernels.CAPTION_LIMIT
    assert report.quantity("separability").clips == separability.CAPTION_LIMIT
    assert report.quantity("frechet").clips == 3500


def test_every_row_lies_in_its_interval_and_range() -> None:
    audio, text, owner = several()
    report = gap.measure(audio, text, owner=owner, bridged=audio + 0.3, bootstrap=50)
    assert [row.name for row in report.rows if row.cloud == "before"] == [
        definition.name for definition in gap.QUANTITIES
    ]
    for row in report.rows:
        assert row.range[0] <= row.low <= row.value <= row.high <= row.range[1], row


def test_same_seed_same_report() -> None:
    audio, text, owner = several()
    reports = [gap.measure(audio, text, owner=owner, bootstrap=10, seed=4) for _ in range(2)]
    assert reports[0] == reports[1]


def test_report_is_plain_json() -> None:
    audio, text, owner = several()
    data = json.loads(json.dumps(gap.measure(audio, text, owner=owner, bootstrap=5).as_dict()))
    assert data["clips"] == 30
    assert {row["name"]: row["range"] for row in data["rows"]}["cs_divergence"] == [0.0, None]


def test_token_gap_by_hand() -> None:
    z_a = np.array([[3.0, 4.0], [0.0, 2.0]])
    z_t = np.array([[0.0, 0.0001], [0.0, 1.0]])
    report = gap.token_gap(z_a, z_t, z_a_before=2 * z_a, bootstrap=20)
    assert report.value("token_l2", "after") == pytest.approx((math.hypot(3, 3.9999) + 1) / 2)
    assert report.value("token_cosine", "after") == pytest.approx((0.8 + 1) / 2)
    assert report.value("token_cosine", "change") == pytest.approx(0.0, abs=1e-6)
    assert report.value("token_l2", "change") < 0.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": cloud(9)}, "9 captions for 10 sounds"),
        ({"text": cloud(10, 5)}, "6 numbers per vector but text has 5"),
        ({"audio": np.zeros((10, 6))}, "all zeros in row 0"),
        ({"audio": np.full((10, 6), np.nan)}, "not finite in row 0"),
        ({"audio": cloud(1)}, "N >= 2"),
        ({"audio": np.array([["a"] * 6] * 10)}, "expected real numbers"),
        ({"bridged": cloud(9)}, r"bridged has the shape \(9, 6\)"),
        ({"owner": np.zeros(10, int)}, "sound 1 has no caption"),
        ({"owner": np.arange(10) + 1}, "owner runs from 1 to 10"),
        ({"owner": np.arange(10.0)}, "owner has dtype float64"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change: dict[str, np.ndarray], message: str) -> None:
    given = {"audio": cloud(10), "text": cloud(10, seed=1)} | change
    with pytest.raises(DataError, match=message):
        gap.measure(**given, bootstrap=5)


@pytest.mark.parametrize("setting", [{"bootstrap": 1}, {"seed": -1}])
def test_settings_out_of_range_are_refused(setting: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        gap.measure(cloud(10), cloud(10, seed=1), **setting)


def test_unknown_quantity_names_the_known_ones() -> None:
    report = gap.token_gap(cloud(4), cloud(4, seed=1), bootstrap=5)
    with pytest.raises(ConfigError, match="token_cosine"):
        report.value("cosine")


def test_docs_table_is_the_registry() -> None:
    page = (ROOT / "docs" / "gap.md").read_text(encoding="utf-8")
    assert gap.markdown_table() in page
