"""Plots of the comparison and of training: PNG files, legible 1200 pixels wide."""

import logging
import re
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.evaluation.rows import Role, Row
from distill.metrics import METRICS, Metric
from distill.report.labels import place_labels, plain
from distill.report.names import is_share, shown
from distill.report.table import measures_of
from distill.wording import count

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette: distinguishable with every kind of colour blindness.
BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, BLACK, YELLOW = (
    *("#0072B2", "#E69F00", "#009E73", "#D55E00"),
    *("#CC79A7", "#56B4E9", "#000000", "#F0E442"),
)
PALETTE = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, BLACK, YELLOW)
STYLES: dict[Role, tuple[str, str, str]] = {
    "expert": ("o", BLUE, "teacher"),
    "mix": ("D", PURPLE, "ensemble of teachers"),
    "baseline": ("s", ORANGE, "baseline"),
    "link": ("^", GREEN, "link of the chain"),
    "student": ("*", VERMILION, "student"),
}
"""Marker, colour and name in the legend of each role."""
HATCHES = ("", "///", "...", "xxx")
DPI = 150
logger = logging.getLogger(__name__)
LAST_LETTER = 0x058F
"""matplotlib's own font has Latin, Greek, Cyrillic and Armenian, and not all that follows."""
FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Source Han Sans SC"),
    *("WenQuanYi Zen Hei", "Droid Sans Fallback", "Microsoft YaHei", "PingFang SC"),
    *("Hiragino Sans", "Arial Unicode MS", "Noto Sans Devanagari", "Unifont"),
)


def trade_off(rows: Sequence[Row], path: str | Path) -> Path:
    """Parameters (log) against the quality of the task: accuracy, or perplexity (log); a model
    without parameters is a horizontal line."""
    figure, axes = new_figure(8.0, 5.4)
    quality = measures_of(rows).test_quality
    values = [(row, row.value(quality.name)) for row in rows]
    measured = [(row, value) for row, value in values if value is not None]
    sized = [(row, value) for row, value in measured if row.params]
    for role, (marker, colour, name) in STYLES.items():
        points = [(row.params, value) for row, value in sized if row.role == role]
        if points:
            size = 190 if marker == "*" else 62
            x, y = zip(*points, strict=True)
            axes.scatter(
                x,
                y,
                size,
                colour,
                marker=marker,
                label=name,
                alpha=0.9,
                edgecolors="white",
                zorder=3,
            )
    axes.set_xscale("log")
    axes.margins(x=0.16, y=0.14)
    for row, value in measured:
        if not row.params:
            axes.axhline(value, color=STYLES[row.role][1], linestyle="--", linewidth=1)
    axes.set_xlabel("parameters")
    if not is_share(quality.name):
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}")
    _quality_axis(axes, quality)
    axes.xaxis.set_major_formatter(lambda value, _: re.sub(r"\.0+ ", " ", count(value)))
    axes.xaxis.set_minor_formatter(lambda value, _: "")
    axes.grid(which="major", color="0.9", linewidth=0.8)
    if sized:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.1), ncols=5, frameon=False)
    labels = [(row.name, row.params or 0.0, value) for row, value in sized]
    lines = [(row.name, value) for row, value in measured if not row.params]
    place_labels(axes, labels, lines)
    return save(figure, path)


def _quality_axis(axes: Any, quality: Metric) -> None:
    axes.set_ylabel(f"{quality.head} on the test split")
    as_number = as_percent if is_share(quality.name) else (lambda value, _: f"{value:g}")
    axes.yaxis.set_major_formatter(as_number)


def learning_curves(
    history: Mapping[str, Sequence[Mapping[str, Any]]],
    path: str | Path,
    accuracy: str = "eval.accuracy",
    loss: str = "loss",
) -> Path:
    """Evaluation accuracy and training loss over steps, a line a fit; below them the temperature,
    of fits in which it varies.

    ``history``: the lines of each fit's metrics.jsonl, by its name.
    """
    varying = _temperatures(history)
    figure, (above, below, *rest) = new_figure(8.0, 9.0 if varying else 7.0, 3 if varying else 2)
    for index, name in enumerate(history):
        above.plot([], [], color=PALETTE[index % len(PALETTE)], linewidth=3, label=plain(name))
    for axes, metric in ((above, accuracy), (below, loss)):
        for index, lines in enumerate(history.values()):
            colour = PALETTE[index % len(PALETTE)]
            points = [(r["step"], r["metrics"][metric]) for r in lines if metric in r["metrics"]]
            if not points:
                continue
            steps, values = zip(*sorted(points), strict=True)
            is_dense = len(values) > 40
            axes.plot(
                steps,
                values,
                color=colour,
                linewidth=0.8 if is_dense else 1.8,
                alpha=0.3 if is_dense else 1,
                marker=None if is_dense else "o",
                markersize=3.5,
            )
            if is_dense:
                values = _smooth(values)
                axes.plot(steps, values, color=colour, linewidth=1.8)
        axes.grid(color="0.9", linewidth=0.8)
    if history:
        above.legend(loc="lower center", bbox_to_anchor=(0.5, 1.01), ncols=5, frameon=False)
    above.set_ylabel("accuracy on the validation split")
    above.yaxis.set_major_formatter(as_percent)
    below.set_ylabel("training loss")
    for axes in rest:
        for index, points in varying.items():
            # Links and student often have the same temperatures: all of them can be seen.
            style = ("-", "--", ":", "-.")[index % 4]
            colour = PALETTE[index % len(PALETTE)]
            axes.plot(*zip(*points, strict=True), color=colour, linestyle=style)
        axes.set_ylabel("temperature")
        axes.grid(color="0.9", linewidth=0.8)
    lowest = rest[-1] if rest else below
    lowest.set_xlabel("optimizer steps")
    lowest.xaxis.get_major_locator().set_params(integer=True)
    return save(figure, path)


def _temperatures(
    history: Mapping[str, Sequence[Mapping[str, Any]]],
) -> dict[int, list[tuple[float, float]]]:
    """Step and temperature of each record, by the index of a fit, where it is not constant."""
    found = {
        index: sorted(
            (line["step"], line["metrics"]["kd.temperature"])
            for line in lines
            if "kd.temperature" in line["metrics"]
        )
        for index, lines in enumerate(history.values())
    }
    return {i: points for i, points in found.items() if len({t for _, t in points}) > 1}


LOG_FROM = 20.0
"""Ratio of perplexities above which bars of a linear axis would be too small to see."""


def per_domain(rows: Sequence[Row], path: str | Path) -> Path:
    """Accuracy of each model in each domain, as groups of bars that start at 0; or perplexity, on a
    logarithmic axis from 1 if the largest is more than LOG_FROM times the smallest."""
    metric = METRICS[measures_of(rows).per_domain]
    some = [row for row in rows if row.per_domain]
    domains = list(dict.fromkeys(name for row in some for name in row.per_domain))
    figure, axes = new_figure(max(8.0, 0.15 * (len(some) + 2) * len(domains)), 5.4)
    width = 0.84 / max(len(some), 1)
    for index, row in enumerate(some):
        left = [d + (index - (len(some) - 1) / 2) * width for d in range(len(domains))]
        bars = axes.bar(
            left,
            [row.per_domain.get(name, 0.0) for name in domains],
            width * 0.92,
            color=PALETTE[index % len(PALETTE)],
            hatch=HATCHES[index // len(PALETTE) % len(HATCHES)],
            edgecolor="white",
            label=plain(row.name),
        )
        found = [row.per_domain.get(name) for name in domains]
        texts = ["" if v is None else shown(metric.name, v).removesuffix(" %") for v in found]
        axes.bar_label(bars, texts, rotation=90, padding=3, fontsize=8)
    axes.set_xticks(range(len(domains)), [plain(name) for name in domains])
    axes.tick_params(axis="x", length=0)
    if is_share(metric.name):
        axes.set_ylim(0, 1.0)
    else:
        axes.margins(y=0.15)  # room for the numbers above the bars
        values = [value for row in some for value in row.per_domain.values()]
        if values and max(values) > LOG_FROM * min(values):
            axes.set_yscale("log")
            axes.set_ylim(bottom=1.0)
    _quality_axis(axes, metric)
    axes.grid(axis="y", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    if some:
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.01), ncols=5, frameon=False)
    return save(figure, path)


def new_figure(
    width: float, height: float, num_rows: int = 1, num_columns: int = 1
) -> tuple["Figure", Any]:
    """A figure outside pyplot: no display, no global state, no figures left open.

    Rows of axes share their x-axis; columns share nothing.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # matplotlib warns once per character; _warn_of_boxes warns once.
    warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from", UserWarning)
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(num_rows, num_columns, sharex="col")
    for one in figure.axes:
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save(figure: "Figure", path: str | Path) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    texts: Any = figure.findobj(_is_of_another_script)
    for text in texts:
        text.set_fontfamily(_families())
    if any(not _can_draw(c) for text in texts for c in text.get_text()):
        _warn_of_boxes()
    figure.savefig(path)
    return path


def _is_of_another_script(artist: Any) -> bool:
    from matplotlib.text import Text

    return isinstance(artist, Text) and any(ord(c) > LAST_LETTER for c in artist.get_text())


@cache
def _can_draw(character: str) -> bool:
    from matplotlib import font_manager

    paths = (font_manager.findfont(name) for name in _families())
    code = ord(character)
    return character == "\n" or any(font_manager.get_font(p).get_char_index(code) for p in paths)


@cache
def _warn_of_boxes() -> None:
    logger.warning(
        "some names have characters that no installed font has, so plots show boxes: the tables "
        "and report.html show them; for plots, install a font such as Noto Sans CJK"
    )


@cache
def _families() -> list[str]:
    """matplotlib's own font, and those of wide coverage that are installed."""
    from matplotlib import font_manager, rcParams

    there = {font.name for font in font_manager.fontManager.ttflist}
    return [*rcParams["font.sans-serif"][:1], *(name for name in FONTS if name in there)]


def as_percent(value: float, _: float) -> str:
    return f"{value * 100:g} %"


def _smooth(values: Sequence[float]) -> list[float]:
    """Exponential mean over about a fortieth of the curve, without the start's bias."""
    decay = 1 - min(1.0, 40 / len(values))
    mean, weight, smoothed = 0.0, 0.0, []
    for value in values:
        mean, weight = decay * mean + value, decay * weight + 1
        smoothed.append(mean / weight)
    return smoothed
