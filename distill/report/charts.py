"""The page's charts as SVG: text stays text, points are buttons, and no library is shipped."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from distill.config.search import Goal
from distill.evaluation.rows import Row
from distill.metrics import on_test
from distill.report.axes import Axis, axis
from distill.report.frontier_plots import comparison_points
from distill.report.markup import Markup, tag
from distill.report.names import is_share, label, shown
from distill.search.choice import plane
from distill.search.trials import Trial, frontier

WIDE, NARROW = 760, 340
"""Two drawings of each chart, so that text has one size on phones and wide screens."""
STAR = (
    "M0 -9 L2.6 -3.2 L8.6 -2.8 L4.1 1.4 L5.5 7.5 L0 4.3 L-5.5 7.5 L-4.1 1.4 L-8.6 -2.8 L-2.6 -3.2 Z"
)
CROSS = "M-4.5 -4.5 L4.5 4.5 M-4.5 4.5 L4.5 -4.5"
DASHES = ("", "7 3", "2 3", "9 3 2 3")
NUM_COLOURS = 7
"""Classes c0 … c6 of the style sheet: Okabe and Ito's palette without yellow."""


def responsive(draw: Callable[[int], Markup]) -> Markup:
    """Both drawings; the style sheet shows the one that fits."""
    return tag(
        "div",
        tag("div", draw(WIDE), class_="wide"),
        tag("div", draw(NARROW), class_="narrow"),
        class_="chart",
    )


def frontier_chart(
    trials: Sequence[Trial],
    goals: Sequence[Goal],
    cost_metric: str,
    rows: Sequence[Row],
    teacher_accuracy: float | None,
) -> Markup:
    """Quality against one cost (size, latency …; log). Filled: validation; hollow: test."""
    quality, cost = plane(goals, cost_metric)
    known = [t for t in trials if _has(t, quality.metric, cost.metric)]
    steps = frontier(known, (quality, cost))
    members = {t.name for t in frontier(trials, goals)}
    baselines = comparison_points(rows, quality.metric, cost.metric)
    teachers = teacher_accuracy if quality.metric == "eval.accuracy" else None
    test = on_test(quality.metric)

    def draw(width: int) -> Markup:
        height = round(width * (0.56 if width == WIDE else 0.95))
        x, y = _frame(
            [t.metrics[cost.metric] for t in known] + [b[1] for b in baselines],
            [t.metrics[quality.metric] for t in known]
            + [t.metrics[test] for t in known if t.name in members and test in t.metrics]
            + [b[2] for b in baselines]
            + ([teachers] if teachers is not None else []),
            *(width, height),
            is_log=True,
        )
        parts = [*_grid(x, y, width, height, label(cost.metric), label(quality.metric), quality)]
        if teachers is not None:
            parts += _line_across(
                x, y, teachers, f"teachers {shown('eval.teacher_accuracy', teachers)}"
            )
        corners = _corners(
            [(x(t.metrics[cost.metric]), y(t.metrics[quality.metric])) for t in steps]
        )
        parts.append(tag("path", d=corners, class_="step"))
        parts += [_baseline(x(b[1]), y(b[2]), b[0], x.stop) for b in baselines]
        for trial in known:
            if trial.name in members and test != quality.metric and test in trial.metrics:
                at = {"cx": x(trial.metrics[cost.metric]), "cy": y(trial.metrics[test])}
                parts.append(tag("circle", **at, r=4, class_="hollow"))
        # The frontier last, so that it is drawn on top and can be clicked.
        ordered = sorted(known, key=lambda t: (t.name in members, t.metrics[cost.metric]))
        for trial in ordered:
            at = (x(trial.metrics[cost.metric]), y(trial.metrics[quality.metric]))
            parts.append(_point(trial, *at, trial.name in members, quality, cost))
        title = f"{label(quality.metric)} against {label(cost.metric)}"
        return _svg(width, height, title, parts, role="group")

    return responsive(draw)


def curves_chart(
    lines: Sequence[tuple[str, bool, Sequence[tuple[int, float]]]], metric: str, x_label: str
) -> Markup:
    """Lines (trial, is on the frontier, (step, value) …); frontier lines have styles."""
    mode = Goal(metric, "max")

    def draw(width: int) -> Markup:
        height = round(width * (0.42 if width == WIDE else 0.8))
        points = [point for *_, curve in lines for point in curve]
        x, y = _frame([p[0] for p in points], [p[1] for p in points], width, height, is_log=False)
        parts = [*_grid(x, y, width, height, x_label, label(metric), mode)]
        index = 0
        for name, is_member, curve in lines:
            d = "M" + " L".join(f"{x(step):.1f} {y(value):.1f}" for step, value in curve)
            style = "curve other"
            dash = None
            if is_member:
                style, dash = curve_style(index)
                index += 1
            attributes = {"data_trial": name, "stroke_dasharray": dash or None}
            parts.append(tag("path", tag("title", name), d=d, class_=style, **attributes))
        return _svg(width, height, f"{label(metric)} over {x_label}", parts)

    return responsive(draw)


def curve_style(index: int) -> tuple[str, str]:
    """Class and dashes of the index-th line: never by colour alone."""
    return f"curve c{index % NUM_COLOURS}", DASHES[index % len(DASHES)]


def bar(share: float, style: str = "") -> Markup:
    """A bar from 0 to ``share`` of the full width."""
    share = min(max(share, 0.0), 1.0) * 100
    inner = tag("rect", x=0, y=0, width=share, height=10, class_=f"fill {style}".strip())
    attributes = {"viewBox": "0 0 100 10", "preserveAspectRatio": "none", "aria_hidden": "true"}
    return tag("svg", inner, class_="bar", **attributes)


def key_line(style: str, dash: str) -> Markup:
    """The sample of a line in a legend."""
    line = tag("path", d="M0 5 L34 5", class_=style, stroke_dasharray=dash or None)
    return tag("svg", line, viewBox="0 0 34 10", class_="key", aria_hidden="true")


def legend() -> Markup:
    """The marks of the frontier chart and their meanings."""
    samples = (
        (
            tag("path", d=STAR, class_="mark star"),
            "on the frontier: no trial is better in one goal and as good in the others",
        ),
        (tag("path", d="M-10 4 L0 4 L0 -4 L10 -4", class_="step"), "best up to each size (cost)"),
        (tag("circle", r=5, class_="mark dot"), "finished"),
        (tag("path", d=CROSS, class_="mark cross"), "stopped early"),
        (tag("circle", r=4, class_="hollow"), "frontier, on test"),
        (tag("rect", x=-4, y=-4, width=8, height=8, class_="baseline"), "baseline, on test"),
    )
    return tag(
        "ul",
        (
            tag("li", tag("svg", mark, viewBox="-11 -11 22 22", class_="sample"), " ", text)
            for mark, text in samples
        ),
        class_="legend",
    )


def _has(trial: Trial, *metrics: str) -> bool:
    values = [trial.metrics.get(metric) for metric in metrics]
    return trial.status != "failed" and all(v is not None and v == v for v in values)


def _frame(
    xs: Sequence[float], ys: Sequence[float], width: int, height: int, is_log: bool
) -> tuple[Axis, Axis]:
    left, bottom = (58, 46) if width == WIDE else (46, 40)
    x = axis(xs, left, width - 12, needs_log=is_log, margin=0.06 if is_log else 0.02)
    return x, axis(ys, height - bottom, 24)


def _grid(
    x: Axis, y: Axis, width: int, height: int, x_label: str, y_label: str, quality: Goal
) -> list[Markup]:
    parts = []
    digits = is_share(quality.metric)
    for at in x.ticks(9 if width == WIDE else 5):
        parts.append(tag("line", x1=x(at), x2=x(at), y1=y.start, y2=y.stop, class_="grid"))
        parts.append(tag("text", f"{at:g}", x=x(at), y=y.start + 17, class_="tick middle"))
    for at in y.ticks(7 if width == WIDE else 5):
        text = f"{at * 100:g} %" if digits else f"{at:g}"
        parts.append(tag("line", x1=x.start, x2=x.stop, y1=y(at), y2=y(at), class_="grid"))
        parts.append(tag("text", text, x=x.start - 6, y=y(at) + 4, class_="tick end"))
    middle = (x.start + x.stop) / 2
    parts.append(tag("text", x_label, x=middle, y=height - 6, class_="name middle"))
    parts.append(tag("text", y_label, x=x.start, y=13, class_="name"))
    return parts


def _line_across(x: Axis, y: Axis, at: float, name: str) -> list[Markup]:
    return [
        tag("line", x1=x.start, x2=x.stop, y1=y(at), y2=y(at), class_="teachers"),
        tag("text", name, x=x.start + 4, y=y(at) - 5, class_="tick halo"),
    ]


def _corners(points: Sequence[tuple[float, float]]) -> str:
    """Across at the same quality, then up: between two students there is no third."""
    if not points:
        return ""
    path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    return path + "".join(f" H{x:.1f} V{y:.1f}" for x, y in points[1:])


LETTER = 6.7
"""Pixels of an average letter of a tick label."""


def _baseline(x: float, y: float, name: str, right: float) -> Markup:
    """A square and its name: to the right, else to the left, else above it."""
    wide = 9 + LETTER * len(name)
    if x + wide <= right:
        place = {"x": x + 9, "y": y + 4, "class_": "tick halo"}
    elif x - wide >= 0:
        place = {"x": x - 9, "y": y + 4, "class_": "tick end halo"}
    else:
        place = {"x": right, "y": y - 8, "class_": "tick end halo"}
    return tag(
        "g",
        tag("rect", x=x - 4, y=y - 4, width=8, height=8, class_="baseline"),
        tag("text", name, **place),
    )


def _point(trial: Trial, x: float, y: float, is_member: bool, quality: Goal, cost: Goal) -> Markup:
    if is_member:
        mark = tag("path", d=STAR, class_="mark star")
    elif trial.status == "stopped":
        mark = tag("path", d=CROSS, class_="mark cross")
    else:
        mark = tag("circle", r=5, class_="mark dot")
    what = "on the frontier" if is_member else trial.status
    figures = ", ".join(
        f"{label(m)} {shown(m, trial.metrics[m])}" for m in (quality.metric, cost.metric)
    )
    return tag(
        "g",
        tag("circle", r=13, class_="target"),
        tag("circle", r=12, class_="ring"),
        mark,
        class_="point",
        transform=f"translate({x:.1f} {y:.1f})",
        role="button",
        tabindex=-1,
        aria_pressed="false",
        aria_label=f"{trial.name}: {figures}, {what}",
        data_trial=trial.name,
    )


def _svg(width: int, height: int, title: str, parts: Sequence[Markup], role: str = "img") -> Markup:
    return tag(
        "svg", parts, viewBox=f"0 0 {width} {height}", role=role, aria_label=title, class_="plot"
    )
