"""Figures and the HTML page: what they show, that they repeat, and that nothing leaves the page."""

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection

from earwitness import gap
from earwitness.errors import ConfigError, DataError, MissingDependencyError
from earwitness.gap import plots
from earwitness.gap.plots.figures import STYLES, draw_projection
from earwitness.gap.plots.page import inline_svg, verdict


def clouds(n: int = 50, width: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    text = rng.standard_normal((n, width))
    noise = rng.standard_normal((n, width))
    return text + noise + 1.0, text, text + 0.5 * noise


def page(**settings: object) -> str:
    audio, text, bridged = clouds()
    report = gap.measure(audio, text, bridged=bridged, bootstrap=20)
    view = plots.project(audio, text, bridged, shown=20)
    return plots.gap_page(report, projections=[view], **settings)  # type: ignore[arg-type]


def embedded(html: str) -> dict[str, object]:
    script = re.search(
        r'<script type="application/json" id="clouds">(.*?)</script>', html, re.DOTALL
    )
    assert script is not None
    return json.loads(script[1])


def test_pca_plane_keeps_the_largest_variance() -> None:
    audio, text, _ = clouds(200)
    view = plots.project(audio, text, shown=200)
    points = np.concatenate([audio, text])
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    singular = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    flat = np.concatenate([view.audio, view.text])
    np.testing.assert_allclose(np.sum(flat**2, axis=0), singular[:2] ** 2, rtol=1e-9)
    assert f"{singular[0] ** 2 / np.sum(singular**2):.0%}" in view.axes[0]


def test_projection_shows_whole_pairs_with_their_first_caption() -> None:
    audio, text, _ = clouds()
    owner = np.concatenate([np.arange(50)[::-1], np.arange(50)])
    view = plots.project(audio, np.concatenate([text[::-1], text]), owner=owner, shown=10)
    assert len(view.clips) == len(view.audio) == len(view.text) == 10
    np.testing.assert_array_equal(owner[view.captions], view.clips)
    assert view.captions.max() < 50


def test_hover_cosine_is_that_of_the_pair() -> None:
    audio, text, bridged = clouds()
    view = plots.project(audio, text, bridged, shown=5)
    i = view.clips[2]
    expected = audio[i] @ text[i] / np.linalg.norm(audio[i]) / np.linalg.norm(text[i])
    assert view.cosine[2] == pytest.approx(expected)
    assert view.bridged_cosine is not None


def test_umap_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    audio, text, _ = clouds()
    with pytest.raises(MissingDependencyError, match=r"\[umap\]"):
        plots.project(audio, text, method="umap")


def test_umap_is_fitted_to_all_clouds_and_shows_the_drawn_pairs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class FirstTwoNumbers:
        """Stands in for UMAP: its plane is the first two numbers of each vector."""

        def __init__(self, **settings: object) -> None:
            assert settings["metric"] == "cosine"
            assert settings["random_state"] == 3

        def fit_transform(self, points: np.ndarray) -> np.ndarray:
            assert points.shape == (3 * 50, 6)
            return points[:, :2]

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=FirstTwoNumbers))
    audio, text, bridged = clouds()
    view = plots.project(audio, text, bridged, method="umap", shown=7, seed=3)
    for shown, cloud in ((view.audio, audio), (view.text, text), (view.bridged, bridged)):
        lengths = np.linalg.norm(cloud[view.clips], axis=1, keepdims=True)
        np.testing.assert_allclose(shown, cloud[view.clips, :2] / lengths)


@pytest.mark.slow
def test_umap_keeps_clusters_apart() -> None:
    pytest.importorskip("umap", reason="needs umap-learn")
    rng = np.random.default_rng(0)
    audio = rng.standard_normal((60, 5)) * 0.1 + [5, 0, 0, 0, 0]
    text = rng.standard_normal((60, 5)) * 0.1 + [0, 5, 0, 0, 0]
    view = plots.project(audio, text, method="umap", shown=60)
    apart = np.linalg.norm(view.audio.mean(axis=0) - view.text.mean(axis=0))
    assert apart > view.audio.std() + view.text.std()


def test_unknown_projection_is_refused() -> None:
    audio, text, _ = clouds()
    with pytest.raises(ConfigError, match="expected pca and umap"):
        plots.project(audio, text, method="tsne")


def test_projection_figure_joins_each_bridged_sound_with_its_caption() -> None:
    audio, text, bridged = clouds()
    view = plots.project(audio, text, bridged, shown=20)
    axes = draw_projection(view).axes[0]
    lines = next(c for c in axes.collections if isinstance(c, LineCollection))
    assert view.bridged is not None
    expected = np.stack([view.bridged, view.text], axis=1)
    np.testing.assert_allclose(np.stack(lines.get_segments()), expected)
    assert sum(isinstance(c, PathCollection) for c in axes.collections) == 3


def test_clouds_differ_in_shape_as_well_as_colour() -> None:
    colors, markers = zip(*STYLES.values(), strict=True)
    assert len(set(colors)) == len(set(markers)) == 3


def test_histogram_counts_every_pair_once() -> None:
    audio, text, bridged = clouds()
    axes = plots.histogram_figure(audio, text, bridged).axes[0]
    filled = [sum(bar.get_height() for bar in bars) for bars in axes.containers if len(bars) > 1]
    assert filled == pytest.approx([1.0, 1.0])
    assert len(axes.get_legend_handles_labels()[1]) == 4


def test_sweep_has_one_line_per_number_of_steps_in_order_of_time() -> None:
    figure = plots.sweep_figure([100, 0, 0], [1, 1, 5], [0.6, 0.4, 0.3], [(0.5, 0.7)] * 3)
    one, five = figure.axes[0].get_lines()
    assert list(one.get_xdata()) == [0, 100]
    assert list(one.get_ydata()) == [0.4, 0.6]
    assert list(five.get_xdata()) == [0]
    assert one.get_linestyle() != five.get_linestyle()


def test_sweep_of_unequal_lengths_is_refused() -> None:
    with pytest.raises(DataError, match="equal lengths"):
        plots.sweep_figure([0, 1], [1], [0.5])


def test_training_curves_by_name() -> None:
    figure = plots.training_curve_figure(
        [0, 1], {"paired cosine": [0, 1], "margin": np.array([1.0, 2.0])}
    )
    assert [line.get_label() for line in figure.axes[0].get_lines()] == ["paired cosine", "margin"]
    with pytest.raises(DataError, match="2 steps"):
        plots.training_curve_figure([0, 1], [1.0])


def test_saved_figures_repeat_byte_for_byte(tmp_path: Path) -> None:
    audio, text, _ = clouds()
    for part in ("one", "two"):
        figure = plots.projection_figure(audio, text, shown=10)
        plots.save_figures({"pca": figure}, tmp_path / part)
    for name in ("pca.svg", "pca.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_page_asks_for_nothing_outside_itself() -> None:
    audio, text, _ = clouds()
    html = page(figures={"histogram": (plots.histogram_figure(audio, text), "Cosines.")})
    addresses = set(re.findall(r"""(?:https?:)?//[^\s"'<>)]+""", html))
    assert {a for a in addresses if "www.w3.org" not in a} == set()
    for hook in ("<link", "@import", "src=", "fetch(", "XMLHttpRequest"):
        assert hook not in html


def test_page_is_well_formed_and_its_ids_are_unique() -> None:
    audio, text, _ = clouds()
    figures = {name: (plots.histogram_figure(audio, text), name) for name in ("one", "two")}
    void = {"meta", "br", "input"}
    stack: list[str] = []
    ids: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            ids.extend(value or "" for key, value in attrs if key == "id")
            if tag not in void:
                stack.append(tag)

        def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            ids.extend(value or "" for key, value in attrs if key == "id")

        def handle_endtag(self, tag: str) -> None:
            assert stack.pop() == tag

    Reader().feed(page(figures=figures))
    assert stack == []
    assert len(ids) == len(set(ids))


def test_captions_stay_text_whatever_they_hold() -> None:
    nasty = ["</script><script>alert(1)</script> & <b>"] * 50
    html = page(captions=nasty)
    assert "</script><script>alert" not in html
    assert embedded(html)["captions"] == nasty[:20]


def test_page_holds_every_number_formula_and_source() -> None:
    html = page()
    for definition in gap.QUANTITIES:
        assert definition.title in html
    assert html.count("<dt>") == len(gap.QUANTITIES)
    assert html.count('scope="row"') == len(gap.QUANTITIES)


def test_page_shows_warnings() -> None:
    audio, text, _ = clouds()
    flat = np.tile(text.mean(axis=0), (50, 1))
    report = gap.measure(audio, text, bridged=flat, bootstrap=20)
    assert "collapse: the bridged cloud" in plots.gap_page(report)


def test_page_colours_follow_the_screen() -> None:
    audio, text, _ = clouds()
    svg = inline_svg(plots.histogram_figure(audio, text), "x")
    assert "var(--blue)" in svg
    assert "#0072b2" not in svg.lower()


def test_too_few_captions_are_refused() -> None:
    with pytest.raises(DataError, match="3 captions"):
        page(captions=["a", "b", "c"])


@pytest.mark.parametrize(
    ("value", "low", "high", "direction", "said"),
    [
        (0.2, 0.1, 0.3, "up", "better"),
        (0.2, 0.1, 0.3, "down", "worse"),
        (-0.2, -0.3, -0.1, "down", "better"),
        (0.2, -0.1, 0.5, "up", "no clear change"),
        (0.2, 0.1, 0.3, "to 1", ""),
    ],
)
def test_verdict_needs_an_interval_without_zero(
    value: float, low: float, high: float, direction: str, said: str
) -> None:
    row = gap.Quantity("margin", value, low, high, (-2.0, 2.0), direction, "", "change")
    assert verdict(row) == said
