"""Plots of an evaluation: calibration, violated relations, accuracy under attack."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from distill.evaluation.calibration import Calibration
from distill.evaluation.relations import RATES
from distill.report.plots import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    as_percent,
    new_figure,
    save,
)

COLOURS = {"student": VERMILION, "teacher": BLUE}
MARKERS = {"student": "o", "teacher": "s"}
METHOD_COLOURS = (GREEN, PURPLE, ORANGE, BLACK)


def reliability(calibrations: Mapping[str, Calibration], path: str | Path) -> Path:
    """Accuracy against confidence, above the share of rows in each bin."""
    figure, (above, below) = new_figure(6.4, 6.8, num_rows=2)
    above.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1, label="calibrated")
    width = 1.0
    for index, (role, one) in enumerate(calibrations.items()):
        num_bins = len(one.count_M)
        filled_M = one.count_M > 0
        above.plot(
            one.confidence_M[filled_M],
            one.accuracy_M[filled_M],
            color=COLOURS[role],
            marker=MARKERS[role],
            label=f"{role} (ECE {one.ece * 100:.1f} %)",
        )
        width = 0.42 / num_bins
        centres_M = (np.arange(num_bins) + 0.5) / num_bins + (index - 0.5) * width
        share_M = one.count_M / one.count_M.sum()
        below.bar(centres_M, share_M, width * 0.92, color=COLOURS[role], label=role)
    above.set_ylabel("accuracy of the bin")
    below.set_ylabel("share of rows")
    below.set_xlabel("confidence (largest probability)")
    above.set_xlim(0, 1)
    above.set_ylim(0, 1.02)
    for axes in (above, below):
        axes.yaxis.set_major_formatter(as_percent)
        axes.xaxis.set_major_formatter(as_percent)
        axes.grid(color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)
    above.legend(loc="upper left", frameon=False)
    return save(figure, path)


def violation_bars(metrics: Mapping[str, float | None], path: str | Path) -> Path:
    """Violation rate of each relation, on original and transformed rows; below, any, by change."""
    changes = [
        name.split(".")[2]
        for name in metrics
        if re.fullmatch(r"fidelity\.transformed\.\w+\.any", name)
    ]
    figure, axes = new_figure(8.0, 3.2 + 0.3 * len(changes))
    rows = [(f"{name}", metrics[f"fidelity.{name}"], BLUE, "original") for name in RATES]
    transformed = [
        (name, metrics.get(f"fidelity.transformed.{name}"), SKY, "transformed") for name in RATES
    ]
    ticks, labels = [], []
    y = 0.0
    for (name, clean, colour, name_of), (_, changed, light, name_of_changed) in zip(
        rows, transformed, strict=True
    ):
        has_both = changed is not None
        _bar(axes, y, clean, colour, name_of, 0.38 if has_both else 0.7)
        if has_both:
            _bar(axes, y + 0.4, changed, light, name_of_changed, 0.38)
        ticks.append(y + (0.2 if has_both else 0))
        labels.append("any of the four" if name == "any" else name)
        y += 1.1
    for change in changes:
        value = metrics[f"fidelity.transformed.{change}.any"]
        _bar(axes, y, value, SKY, "transformed", 0.62)
        ticks.append(y)
        labels.append(f"any, {change.replace('_', ' ')}")
        y += 0.8
    axes.set_yticks(ticks, labels)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, 1.08)
    axes.set_xlabel("share of rows on which student and teacher violate the relation")
    axes.xaxis.set_major_formatter(as_percent)
    axes.grid(axis="x", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    handles, names = axes.get_legend_handles_labels()
    once = dict(zip(names, handles, strict=True))
    axes.legend(
        once.values(),
        once.keys(),
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=2,
        frameon=False,
    )
    return save(figure, path)


def _bar(axes, y: float, value: float | None, colour: str, label: str, height: float) -> None:  # type: ignore[no-untyped-def]
    bars = axes.barh(y, value or 0.0, height, color=colour, label=label)
    axes.bar_label(bars, ["–" if value is None else f"{value * 100:.1f}"], padding=3, fontsize=8)


def accuracy_under_attack(curves: Mapping[str, Mapping[str, np.ndarray]], path: str | Path) -> Path:
    """Accuracy left after so many queries a sample: a line a method, and any of them in bold."""
    figure, axes = new_figure(8.0, 5.0)
    methods = list(next(iter(curves.values())))
    for role, of_role in curves.items():
        for index, method in enumerate(methods):
            is_any = method == "any"
            axes.plot(
                of_role[method],
                color=COLOURS[role] if is_any else METHOD_COLOURS[index % len(METHOD_COLOURS)],
                linestyle="-" if role == "student" else "--",
                linewidth=2.6 if is_any else 1.2,
                label=f"{role}, {'any attack' if is_any else method}",
            )
    axes.set_xlabel("queries a sample and method")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_ylabel("accuracy under attack")
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(as_percent)
    axes.grid(color="0.9", linewidth=0.8)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.01), ncols=3, frameon=False, fontsize=8)
    return save(figure, path)
