"""Plots: files of a sane size, and labels that do not cover each other."""

import io
import itertools

import matplotlib.image
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from distill.report import plots
from distill.report.labels import place_labels
from tests.report.rows import a_row

DOMAINS = ("books", "dvd", "electronics", "kitchen")
ROWS = [
    *(
        a_row(f"expert {d}", "expert", 22.7e6, accuracy=a, per_domain=dict.fromkeys(DOMAINS, a))
        for d, a in zip(DOMAINS, (0.79, 0.795, 0.801, 0.81), strict=True)
    ),
    a_row("routed ensemble", "mix", 95.8e6, accuracy=0.852),
    a_row("tf-idf", "baseline", accuracy=0.77),
    a_row("distilled", "student", 3.5e6, accuracy=0.82, per_domain=dict.fromkeys(DOMAINS, 0.82)),
    a_row("unmeasured", "student"),
]
HISTORY = {
    "distilled": [{"step": s, "time": 0.0, "metrics": {"loss": 1 / s}} for s in range(1, 90)]
    + [{"step": s, "time": 0.0, "metrics": {"eval.accuracy": s / 100}} for s in (30, 60, 89)],
    "expert": [{"step": 5, "time": 0.0, "metrics": {"loss": 0.5}}],
}


def test_plots_are_1200_pixels_wide_and_not_empty(tmp_path):
    for path in (
        plots.trade_off(ROWS, tmp_path / "new" / "trade_off.png"),
        plots.learning_curves(HISTORY, tmp_path / "curves.png"),
        plots.per_domain(ROWS, tmp_path / "domains.png"),
    ):
        pixels = matplotlib.image.imread(path)
        assert pixels.shape[1] == 1200
        assert 700 <= pixels.shape[0] <= 1200
        assert pixels.std() > 0.05
        assert 10_000 < path.stat().st_size < 500_000


def test_plots_of_nothing_do_not_fail(tmp_path):
    plots.trade_off([], tmp_path / "a.png")
    plots.trade_off([a_row("majority", "baseline", accuracy=0.5)], tmp_path / "b.png")
    plots.learning_curves({}, tmp_path / "c.png")
    plots.per_domain([], tmp_path / "d.png")


def test_steps_are_whole_and_equal_temperatures_are_both_visible(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(plots, "save", lambda figure, path: shown.append(figure) or path)
    lines = [
        {"step": s, "time": 0.0, "metrics": {"loss": 1 / s, "kd.temperature": 30 / s}}
        for s in (10, 20, 27)
    ]
    plots.learning_curves({"student": lines, "link 1": lines}, tmp_path / "c.png")
    (figure,) = shown
    *_, temperature = figure.axes
    assert all(tick == round(tick) for tick in temperature.get_xticks())
    assert [line.get_linestyle() for line in temperature.get_lines()] == ["-", "--"]


@pytest.mark.parametrize(("worst", "scale"), [(9.0, "linear"), (900.0, "log")])
def test_perplexities_far_apart_have_a_logarithmic_axis(worst, scale, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(plots, "save", lambda figure, path: shown.append(figure.axes[0]) or path)
    row = a_row("student", "student", perplexity=9.0, per_domain={"a": 3.0, "b": worst})
    plots.per_domain([row], tmp_path / "a.png")
    assert shown[0].get_yscale() == scale
    assert shown[0].get_ylim()[0] == (1.0 if scale == "log" else 0.0)


@pytest.mark.parametrize("gap", [0.0, 0.0005, 0.005])
def test_labels_of_equal_sizes_stand_apart(gap):
    figure = Figure(figsize=(8, 5), dpi=150)
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    points = [(f"expert number {i}", 22.7e6, 0.8 + gap * i) for i in range(8)]
    axes.scatter([p[1] for p in points], [p[2] for p in points])
    axes.set_xlim(1e6, 1e8)
    axes.set_ylim(0.7, 0.9)
    place_labels(axes, points, [("majority", 0.79)])
    figure.savefig(io.BytesIO())
    renderer = canvas.get_renderer()
    boxes = [Text.get_window_extent(text, renderer) for text in axes.texts]  # without lines
    assert len(boxes) == 9
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    frame = axes.get_window_extent()
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)
