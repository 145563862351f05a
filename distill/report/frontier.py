"""Files of a sweep: its frontier as a table, a plot and a page, and the best under each size."""

from __future__ import annotations

import csv
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill.config.search import Goal
from distill.evaluation.rows import Row
from distill.metrics import SIZE
from distill.report.axes import axis
from distill.report.frontier_plots import frontier_png, heat_map_png
from distill.report.heat import heat_grid
from distill.report.keys import differing
from distill.report.names import is_share, label, shown, shown_value
from distill.report.plots import BLACK, BLUE, ORANGE, VERMILION
from distill.search.choice import plane, winners
from distill.search.importance import HAS_NO_SKILL, importance
from distill.search.trials import Trial, frontier

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval' blob:; worker-src blob:; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:"
)
"""plotly.js writes styles and code of its own; nothing may be fetched."""
_CONFIG = {
    "displaylogo": False,
    "responsive": True,
    "plotlyServerURL": "",
    "modeBarButtonsToRemove": ["sendChartToCloud", "select2d", "lasso2d"],
}
"""Without the button that would send the data to plotly's own server."""


def write_frontier(
    folder: str | Path,
    trials: Sequence[Trial],
    goals: Sequence[Goal],
    searched: Sequence[str],
    rows: Sequence[Row] = (),
    teacher_accuracy: float | None = None,
) -> list[Path]:
    """frontier.csv, .png, .html, winners.md, importance.md; a heat map where T and α were searched.

    Returns the files written. ``rows``: the comparison on the test split; ``teacher_accuracy``:
    of the aggregated teachers on validation.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "frontier.csv"
    _write_csv(table, trials, goals, searched)
    written = [
        table,
        frontier_png(trials, goals, folder / "frontier.png", rows, teacher_accuracy),
        _write_html(folder / "frontier.html", trials, goals, searched, teacher_accuracy),
    ]
    winners = winners_markdown(trials, goals, searched)
    if winners:
        written.append(folder / "winners.md")
        written[-1].write_text(winners, encoding="utf-8")
    grid = heat_grid(trials, goals[0].metric)
    if grid is not None:
        written.append(heat_map_png(grid, goals[0], folder / "heat_map.png"))
    written.append(folder / "importance.md")
    written[-1].write_text(_importance_markdown(trials, goals[0], searched), encoding="utf-8")
    return written


def _importance_markdown(trials: Sequence[Trial], goal: Goal, searched: Sequence[str]) -> str:
    """How much each key matters, and how reliable that is."""
    found = importance(trials, searched, goal.metric)
    if found.reason or found.r2 is None:
        return f"Not measured: {found.reason}.\n"
    rows = [f"| {key} | {mean:.2f} ± {sd:.2f} |" for key, (mean, sd) in found.keys.items()]
    trust = f"R² on held-out trials: {found.r2:.2f}, from {found.num_trials} trials."
    if found.r2 < HAS_NO_SKILL:
        trust += " That is too low: the numbers are noise."
    head = [f"| key | fall of R² for {goal.metric} |", "| --- | ---: |"]
    return "\n".join([*head, *rows, "", trust]) + "\n"


def _write_csv(
    path: Path, trials: Sequence[Trial], goals: Sequence[Goal], searched: Sequence[str]
) -> None:
    """Every trial, unrounded; columns as in ``mlflow.search_runs``: params.…, metrics.…."""
    best_names = {trial.name for trial in frontier(trials, goals)}
    metrics = list(dict.fromkeys(goal.metric for goal in goals))
    metrics += sorted({name for t in trials for name in t.metrics} - set(metrics))
    head = ["trial", "status", "on_frontier"]
    head += [f"params.{key}" for key in searched] + [f"metrics.{name}" for name in metrics]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*head, "student", "reason"])
        for trial in trials:
            writer.writerow(
                [trial.name, trial.status, str(trial.name in best_names).lower()]
                + [_plain(trial.values.get(key)) for key in searched]
                + [_plain(trial.metrics.get(name)) for name in metrics]
                + [trial.student, trial.reason]
            )


def _plain(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def winners_markdown(
    trials: Sequence[Trial], goals: Sequence[Goal], searched: Sequence[str]
) -> str:
    """The best trial under each limit of size, with its configuration; "" without sizes."""
    quality = goals[0]
    won_at = winners(trials, goals)
    keys = differing(trials, searched)
    head = ["at most", "trial", label(quality.metric), label(SIZE), *keys]
    lines = []
    for limit, won in won_at:
        cells = [f"{limit:g} MB", won.name]
        cells += [shown(name, won.metrics.get(name)) for name in (quality.metric, SIZE)]
        lines.append(cells + [shown_value(won.values.get(key)) for key in keys])
    if not lines:
        return ""
    rules = ["---", "---", "---:", "---:"] + ["---:"] * len(keys)
    return "".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"
        for cells in [head, rules, *lines]
    )


def _write_html(
    path: Path,
    trials: Sequence[Trial],
    goals: Sequence[Goal],
    searched: Sequence[str],
    teacher_accuracy: float | None,
) -> Path:
    """An interactive plot in one file, plotly.js included: nothing is fetched."""
    from plotly import graph_objects as go

    quality, cost = plane(goals)
    known = [
        t
        for t in trials
        if t.status != "failed"
        and float("inf") not in (quality.cost(t.metrics), cost.cost(t.metrics))
    ]
    figure = go.Figure()
    _add_marks(figure, known, goals, searched)
    if teacher_accuracy is not None and quality.metric == "eval.accuracy":
        figure.add_hline(
            teacher_accuracy, line_dash="dash", line_color=BLACK, annotation_text="teachers"
        )
    scale = axis([t.metrics[cost.metric] for t in known] or [1.0], 0, 1, needs_log=True)
    ticks = scale.ticks(9)
    figure.update_layout(
        template="plotly_white",
        xaxis={
            "title": label(cost.metric),
            "type": "log" if scale.is_log else "linear",
            "tickvals": ticks,
            "ticktext": [f"{tick:g}" for tick in ticks],
        },
        yaxis={
            "title": label(quality.metric),
            "tickformat": ".1%" if is_share(quality.metric) else "",
        },
        legend={"orientation": "h", "y": 1.08},
        font={"size": 14, "color": "#1a1a1a"},
    )
    page = figure.to_html(include_plotlyjs=True, config=_CONFIG)
    head = (
        '<head><meta charset="utf-8"><title>Frontier</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
    )
    path.write_text(page.replace("<head>", head, 1), encoding="utf-8")
    return path


def _add_marks(
    figure: Any, known: Sequence[Trial], goals: Sequence[Goal], searched: Sequence[str]
) -> None:
    """The step line, and one group of marks each for the frontier, the finished, the stopped."""
    quality, cost = plane(goals)
    members = frontier(known, goals)

    def xy(some: Sequence[Trial]) -> dict[str, Any]:
        return {
            "x": [t.metrics[cost.metric] for t in some],
            "y": [t.metrics[quality.metric] for t in some],
            "text": [_hover(t, goals, searched) for t in some],
            "hoverinfo": "text",
        }

    figure.add_scatter(
        **xy(frontier(known, (quality, cost))) | {"hoverinfo": "skip"},
        mode="lines",
        line={"color": VERMILION, "shape": "hv", "width": 2},
        name=f"best at each {label(cost.metric)}",
    )
    beaten = [t for t in known if t not in members]
    groups = (
        ("on the frontier", members, "star", VERMILION, 15),
        ("finished", [t for t in beaten if t.status == "finished"], "circle", BLUE, 9),
        ("stopped early", [t for t in beaten if t.status == "stopped"], "x", ORANGE, 8),
    )
    for name, some, symbol, colour, size in groups:
        edge = {"color": "white", "width": 1}
        marker = {"symbol": symbol, "color": colour, "size": size, "line": edge}
        if some:
            figure.add_scatter(**xy(some), mode="markers", name=name, marker=marker)


def _hover(trial: Trial, goals: Sequence[Goal], searched: Sequence[str]) -> str:
    """plotly reads some HTML in hover texts, so names and values are escaped."""
    lines = [f"<b>{html.escape(trial.name)}</b>"]
    lines += [f"{label(g.metric)}: {shown(g.metric, trial.metrics.get(g.metric))}" for g in goals]
    lines += [
        f"{html.escape(key)}: {html.escape(shown_value(trial.values.get(key)))}" for key in searched
    ]
    return "<br>".join(lines)
