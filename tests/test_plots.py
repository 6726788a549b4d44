from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.text import Text

from fakegan.evaluation import error_plots, plots

RNG = np.random.default_rng(0)
LABELS = np.repeat([0, 1], 50)
SCORES = np.clip(0.3 + 0.3 * LABELS + 0.2 * RNG.normal(size=100), 0, 1)
SOURCES = np.where(LABELS == 1, "gan", "camera")


def test_reliability_is_drawn_before_and_after_the_temperature_and_no_legend_covers_a_curve(tmp_path: Path) -> None:
    assert "reliability" not in plots.pictures(SCORES, LABELS, SOURCES, 0.5)
    figures = plots.pictures(SCORES, LABELS, SOURCES, 0.5, SCORES**3)
    assert set(figures) == {"roc", "confusion", "score_histogram", "reliability"}
    before, after = figures["reliability"].axes[0].lines[1:]
    assert before.get_xdata().mean() < after.get_xdata().mean()  # the cube of a score is below it
    for name, figure in figures.items():
        figure.savefig(tmp_path / f"{name}.png")
        for legend in figure.legends:  # below the curves, not over them
            assert legend.get_window_extent().y1 <= min(axes.get_tightbbox().y0 for axes in figure.axes)
    assert sum(len(figure.legends) for figure in figures.values()) == 3
    assert not any(axes.get_legend() for figure in figures.values() for axes in figure.axes)


def test_legends_of_spectra_cover_neither_curves_nor_titles() -> None:
    spectra = dict.fromkeys(("face", "reconstruction", "residual"), np.exp(RNG.normal(size=(100, 46))))
    figure = error_plots.mean_spectra(spectra, LABELS, 64)
    error_plots.rendered(figure)
    legends = [(axes, axes.get_legend()) for axes in figure.axes if axes.get_legend()]
    assert [len(legend.get_texts()) for _, legend in legends] == [3, 3]
    for axes, legend in legends:
        box = legend.get_window_extent()
        assert not any(box.overlaps(other.bbox) for other in figure.axes)
        words = {axes.get_title(loc="left"), *(text.get_text() for text in figure.texts)}
        titles = [text for text in figure.findobj(Text) if text.get_text() in words and text not in legend.get_texts()]
        assert len(titles) >= 2
        assert not any(box.overlaps(title.get_window_extent()) for title in titles)


def test_wins_matrix_says_who_wins() -> None:
    axes = plots.wins_matrix(np.array([[0, 1], [-1, 0]]), ["a", "b"]).axes[0]
    assert {(t.get_position(), t.get_text()) for t in axes.texts} == {((1, 0), "wins"), ((0, 1), "loses")}


def test_roc_comparison_draws_each_seed_and_the_mean_between_them() -> None:
    right, wrong = (np.array([0.1, 0.9]), np.array([0, 1])), (np.array([0.9, 0.1]), np.array([0, 1]))
    axes = plots.roc_comparison({"a": [right, wrong]}).axes[0]
    *seeds, mean = axes.lines[:3]
    assert all(line.get_linewidth() < mean.get_linewidth() for line in seeds)
    inside = (mean.get_xdata() > 0) & (mean.get_xdata() < 1)
    assert np.allclose(mean.get_ydata()[inside], 0.5)
    assert mean.get_label() == "a (0.500)"


def test_seeds_plot_has_a_dot_a_seed_and_the_mean() -> None:
    axes = plots.seeds_plot({"a": [0.7, 0.9], "b": [0.6]}).axes[0]
    bar, dots = axes.lines[:2]
    assert (list(bar.get_xdata()), list(dots.get_xdata())) == (pytest.approx([0.8, 0.8]), [0.7, 0.9])
    assert [t.get_text() for t in axes.texts] == ["0.800", "0.600"]


@pytest.mark.parametrize("differing", ["", " ema=0.99 input_size=128 pretrained=true weights_sha256=73f51b16"])
@pytest.mark.parametrize("count", [2, 8])
def test_long_names_stay_on_a_figure_as_wide_as_a_phone(count: int, differing: str) -> None:
    names = [f"recon_classify · autogan4 · simple_cnn{differing} {i}" for i in range(count)]
    figures = (
        plots.wins_matrix(np.zeros((count, count), dtype=int), names),
        plots.roc_comparison({name: [(SCORES, LABELS)] for name in names}),
        plots.seeds_plot({name: [0.7, 0.8] for name in names}),
    )
    for figure in figures:
        figure.draw_without_rendering()
        assert figure.get_figwidth() == 4.8
        box = figure.get_tightbbox()  # of everything drawn, in inches
        assert box.x0 >= 0
        assert box.x1 <= 4.8
        for axes in figure.axes:
            texts = [*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels(), axes.title, axes.xaxis.label]
            assert min(text.get_fontsize() for text in texts) >= 8


def test_25_generators_of_odd_names_are_all_in_the_legend_below_the_curves(tmp_path: Path) -> None:
    names = ["$a$b_{", "_hidden", "no_utf8_\udcff", *(f"generator_{i}" for i in range(22))]
    labels = np.repeat([0, 1], [50, 250])
    scores = np.clip(0.3 + 0.3 * labels + 0.2 * RNG.normal(size=300), 0, 1)
    sources = np.concatenate([np.full(50, "camera"), np.repeat(names, 10)])
    figure = plots.pictures(scores, labels, sources, 0.5)["roc"]
    figure.savefig(tmp_path / "roc.png")  # matplotlib reads formulas only now
    (axes,), (legend,) = figure.axes, figure.legends
    told = [text.get_text() for text in legend.get_texts()]
    assert len(told) == 27
    assert all(any(name.startswith(odd) for name in told) for odd in (r"\$a\$b_{ (0.", " _hidden (0.", "no_utf8_? (0."))
    box, curves = legend.get_window_extent(), axes.get_tightbbox()
    assert box.y1 <= curves.y0  # below, not over them
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1
    styles = {(line.get_color(), line.get_linestyle()) for line in axes.lines[:25]}
    assert len(styles) == 24  # then they begin again


def test_the_colours_of_bars_are_named_above_them() -> None:
    measure = {"value": 0.8, "low": 0.7, "high": 0.9}
    figure = plots.generator_bars({"seen": {"gan": {"one": measure, "two": measure}}})
    figure.draw_without_rendering()
    legend, panel = figure.legends[0].get_window_extent(), figure.axes[0].get_window_extent()
    assert legend.y0 > panel.y1
