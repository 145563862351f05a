"""Pictures of a sweep: the frontier, and a heat map over two keys."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.config.search import Goal
from distill.evaluation.rows import Row
from distill.metrics import LATENCY, SIZE, on_test
from distill.report.heat import Heatmap
from distill.report.labels import FONT_SIZE, place_labels
from distill.report.names import is_share, label, shown
from distill.report.plots import BLUE, ORANGE, PURPLE, VERMILION, as_percent, new_figure, save
from distill.search.choice import plane
from distill.search.trials import Trial, frontier

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COSTS = (SIZE, LATENCY, "student.params")
"""Against which baselines are drawn."""


def frontier_png(
    trials: Sequence[Trial],
    goals: Sequence[Goal],
    path: str | Path,
    rows: Sequence[Row] = (),
    teacher_accuracy: float | None = None,
) -> Path:
    """Quality against the first cost (log): every trial, and the best at each cost as a step line.

    Stars are on the frontier of all goals; with more than two goals, some are below the line.
    Filled marks are on validation, which a sweep selects by; hollow ones on test, where the
    baselines were measured.
    """
    quality, cost = plane(goals)
    figure, axes = new_figure(8.0, 5.4)
    steps = frontier(trials, (quality, cost))
    members = frontier(trials, goals)
    beaten = [t for t in trials if t.status == "finished" and t not in members]

    def points(some: Sequence[Trial], y: str = quality.metric) -> list[tuple[float, float]]:
        return [
            (t.metrics[cost.metric], t.metrics[y])
            for t in some
            if cost.metric in t.metrics and y in t.metrics
        ]

    _marks(axes, points(beaten), "o", BLUE, 34, "finished trial", alpha=0.55)
    stopped = [t for t in trials if t.status == "stopped"]
    _marks(axes, points(stopped), "x", "0.55", 34, "stopped early")
    if steps:
        x, y = zip(*points(steps), strict=True)
        axes.plot(
            x,
            y,
            color=VERMILION,
            linewidth=2,
            drawstyle="steps-post",
            zorder=3,
            label=f"best at each {label(cost.metric)}",
        )
    _marks(axes, points(members), "*", VERMILION, 190, "on the frontier")
    test = on_test(quality.metric)
    if test != quality.metric:
        _marks(
            axes, points(members, test), "o", VERMILION, 40, "frontier, test split", is_hollow=True
        )
    baselines = comparison_points(rows, quality.metric, cost.metric)
    _marks(
        axes, [p[1:] for p in baselines], "s", ORANGE, 48, "baseline, test split", is_hollow=True
    )
    lines = []
    if teacher_accuracy is not None and quality.metric == "eval.accuracy":
        axes.axhline(teacher_accuracy, color=PURPLE, linestyle="--", linewidth=1.4)
        lines = [("teachers", teacher_accuracy)]
    _dress(axes, quality, cost, is_log=all(x > 0 for x, _ in points(trials)))
    place_labels(axes, baselines, lines)
    names = [(t.name, *p) for t, p in zip(steps, points(steps), strict=True)]
    _name_steps(axes, names, is_up=quality.mode == "max")
    return save(figure, path)


def _name_steps(axes: Axes, names: Sequence[tuple[str, float, float]], is_up: bool) -> None:
    """Names above and to the left of each step, where no trial can be.

    A name that would cover another is left out: the table and the page have it.
    """
    renderer = axes.figure.canvas.get_renderer()  # type: ignore[attr-defined]
    taken: list[Any] = []
    for name, x, y in names:
        text = axes.annotate(
            name,
            *((x, y), (-5, 4 if is_up else -4)),
            textcoords="offset points",
            fontsize=FONT_SIZE,
            ha="right",
            va="bottom" if is_up else "top",
        )
        box = text.get_window_extent(renderer)
        if any(box.overlaps(other) for other in taken):
            text.remove()
        else:
            taken.append(box)


def comparison_points(
    rows: Sequence[Row], quality: str, cost: str
) -> list[tuple[str, float, float]]:
    """Baselines that have both metrics: name, cost, quality on the test split."""
    test = on_test(quality)
    if cost not in COSTS or test == quality:
        return []
    found = []
    for row in rows:
        x, y = row.value(cost), row.value(test)
        if row.role == "baseline" and x and y is not None and not math.isnan(y):
            found.append((row.name, x, y))
    return found


def heat_map_png(grid: Heatmap, goal: Goal, path: str | Path) -> Path:
    """Means as colours and numbers, the count of trials under each; empty cells stay white."""
    width = max(8.0, 1.1 * len(grid.x_labels) + 2)
    figure, axes = new_figure(width, max(4.0, 0.8 * len(grid.y_labels) + 1.6))
    colours = "cividis" if goal.mode == "max" else "cividis_r"
    image = axes.imshow(grid.mean_YX, cmap=colours, origin="lower", aspect="auto")
    axes.set_xticks(range(len(grid.x_labels)), grid.x_labels)
    axes.set_yticks(range(len(grid.y_labels)), grid.y_labels)
    axes.set_xlabel(grid.x)
    axes.set_ylabel(grid.y)
    axes.tick_params(length=0)
    for (y, x), trials in _cells(grid):
        red, green, blue, _ = image.cmap(image.norm(grid.mean_YX[y, x]))
        is_dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
        axes.text(
            *(x, y, f"{shown(goal.metric, float(grid.mean_YX[y, x]))}\nn = {trials}"),
            ha="center",
            va="center",
            color="white" if is_dark else "black",
        )
    bar = figure.colorbar(image, ax=axes, label=f"mean {label(goal.metric)}")
    bar.outline.set_visible(False)
    if is_share(goal.metric):
        bar.ax.yaxis.set_major_formatter(as_percent)
    return save(figure, path)


def _cells(grid: Heatmap) -> list[tuple[tuple[int, int], int]]:
    height, width = grid.count_YX.shape
    return [
        ((y, x), int(grid.count_YX[y, x]))
        for y in range(height)
        for x in range(width)
        if grid.count_YX[y, x]
    ]


def _marks(
    axes: Axes,
    points: Sequence[tuple[float, float]],
    marker: str,
    colour: str,
    size: float,
    name: str,
    alpha: float = 0.95,
    is_hollow: bool = False,
) -> None:
    if not points:
        return
    x, y = zip(*points, strict=True)
    # A cross has no edge of its own.
    faces: dict[str, Any] = {"color": colour} if marker == "x" else {"edgecolors": "white"}
    if marker != "x":
        faces["facecolors"] = colour
    if is_hollow:
        faces = {"facecolors": "none", "edgecolors": colour, "linewidths": 1.4}
    axes.scatter(x, y, size, marker=marker, label=name, alpha=alpha, zorder=4, **faces)


def _dress(axes: Axes, quality: Goal, cost: Goal, is_log: bool) -> None:
    if is_log:
        axes.set_xscale("log")
    axes.margins(x=0.12, y=0.12)
    axes.set_xlabel(label(cost.metric))
    axes.set_ylabel(label(quality.metric))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    if is_log:
        from matplotlib.ticker import LogLocator

        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.5, 5.0)))
        axes.xaxis.set_minor_formatter(lambda value, _: "")
    if is_share(quality.metric):
        axes.yaxis.set_major_formatter(as_percent)
    axes.grid(which="major", color="0.9", linewidth=0.8)
    handles = axes.get_legend_handles_labels()[0]
    if handles:
        axes.legend(
            loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(len(handles), 3), frameon=False
        )
