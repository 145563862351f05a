"""The report as one HTML file: no network, no library, every text escaped.

Charts are SVG written here and not plotly's: the page is 100 kB instead of 5 MB, its text stays
legible on a phone and on paper, its points are reached by keyboard, and its content-security
policy can name the one script by its hash (plotly needs 'unsafe-eval'). ``frontier.html`` is
plotly's, for zooming.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distill.config.yaml_text import write_yaml
from distill.metrics import LATENCY, SIZE, measured_by
from distill.report import sections
from distill.report.charts import frontier_chart, legend
from distill.report.document import document
from distill.report.markup import Markup, join, tag
from distill.report.names import is_share, label, shown
from distill.report.tables import winners_table
from distill.search.choice import best, cheapest_near, plane
from distill.search.trials import Trial, Value, frontier
from distill.tracking.read import Record

COSTS = (SIZE, LATENCY, "student.gflops", "student.params")
NEAR = 0.01
"""How much worse "nearly as good" may be: of fractions itself, of others a share."""


def write_page(record: Record, path: str | Path) -> Path:
    """The whole report of an experiment."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(record), encoding="utf-8")
    return path


def page(record: Record) -> str:
    parts = {
        "Frontier": _frontier(record),
        "Winners": winners_table(record.trials, record.goals, record.searched),
        "Trials": sections.trials(record),
        "Comparison": sections.comparison(record),
        "Temperature and alpha": sections.heat_map(record),
        "Importance": sections.importances(record),
        "Learning curves": sections.curves(record),
        "Domains": sections.domains(record),
        "Failures": sections.failures(record),
        "Environment": sections.environment(record),
        "Metrics": sections.meanings(record),
    }
    return document(f"{record.experiment}: distill report", _head(record), parts)


def _head(record: Record) -> Markup:
    counts = {"finished": 0, "stopped": 0, "failed": 0}
    for trial in record.trials:
        counts[trial.status] += 1
    ended = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    if record.num_running:
        ended += f", {record.num_running} not finished"
    what = "sweep of" if record.is_sweep else "training runs:"
    notes = list(record.notes)
    if record.is_partial:
        notes.append(
            "the sweep was still running when this report was written: better trials may follow"
        )
    return join(
        [
            tag("h1", record.experiment),
            tag(
                "p",
                f"{what} {len(record.trials)} students ({ended}), {record.started}",
                class_="soft",
            ),
            (tag("p", note, class_="note") for note in notes),
            _facts(record),
        ]
    )


def _facts(record: Record) -> Markup:
    quality, cost = plane(record.goals)
    facts: list[tuple[str, str, str]] = []

    def student(title: str, trial: Trial | None) -> None:
        if trial is not None:
            value = shown(quality.metric, trial.metrics[quality.metric])
            size = f"{label(cost.metric)} {shown(cost.metric, trial.metrics.get(cost.metric))}"
            facts.append((title, value, f"{trial.name}, {size}"))

    top = best(record.trials, record.goals)
    student(f"Best {label(quality.metric)}", top)
    is_relative = not is_share(quality.metric)
    room = NEAR * top.metrics[quality.metric] if is_relative and top is not None else NEAR
    near = cheapest_near(record.trials, record.goals, room)
    if near is not None and near is not top and quality.metric.startswith("eval."):
        student(f"Smallest within 1 {'%' if is_relative else 'percentage point'} of the best", near)
    if record.teacher_accuracy is not None:
        text = "aggregate, on validation"
        facts.append(("Teachers", shown("eval.teacher_accuracy", record.teacher_accuracy), text))
    if "teacher.passes" in record.totals:
        passes = record.totals["teacher.passes"]
        text = f"of the whole data set, for {len(record.trials)} trials"
        if "time.total_s" in record.totals:
            text += f", {record.totals['time.total_s'] / 60:.0f} min in total"
        facts.append(("Teacher forwards", f"{passes:g} ×", text))
    return tag(
        "dl",
        (
            tag("div", tag("dt", name), tag("dd", value, tag("small", more)))
            for name, value, more in facts
        ),
        class_="facts",
    )


def _frontier(record: Record) -> Markup:
    known = {name for t in record.trials if t.status == "finished" for name in t.metrics}
    first = plane(record.goals)[1].metric
    costs = [c for c in dict.fromkeys([first, *COSTS]) if c in known]
    radios = (
        tag(
            "label",
            tag("input", type="radio", name="cost", value=c, checked=c == first),
            " ",
            label(c),
        )
        for c in costs
    )
    choices = tag("fieldset", tag("legend", "against"), radios, class_="choices")
    figures = (
        tag(
            "figure",
            frontier_chart(record.trials, record.goals, c, record.rows, record.teacher_accuracy),
            data_cost=c,
        )
        for c in costs
    )
    hint = tag(
        "p",
        "Select a point for its configuration: click, or Tab and the arrow keys, then Enter. "
        "Filled marks are measured on validation, which a sweep selects by; hollow ones on test.",
        class_="soft screen",
    )
    chart = tag("div", choices if len(costs) > 1 else None, figures, legend(), hint)
    return tag("div", chart, _configurations(record), class_="split")


def _configurations(record: Record) -> Markup:
    members = frontier(record.trials, record.goals)
    others = [t for t in record.trials if t not in members]
    top = best(record.trials, record.goals)
    return tag(
        "div",
        (
            _configuration(record, trial, trial in members, trial is top)
            for trial in [*members, *others]
        ),
        class_="panel",
    )


def _configuration(record: Record, trial: Trial, is_member: bool, is_first: bool) -> Markup:
    what = "on the frontier" if is_member else trial.status
    below = record.below_majority(trial)
    metrics = [*(g.metric for g in record.goals), *measured_by(trial.metrics).tested]
    figures = [
        (tag("dt", label(m)), tag("dd", shown(m, trial.metrics[m])))
        for m in dict.fromkeys(metrics)
        if m in trial.metrics
    ]
    return tag(
        "article",
        tag("h3", f"★ {trial.name}" if is_member else trial.name),
        tag("p", trial.reason or what, class_="soft"),
        tag("p", below, class_="note") if below else None,
        tag("dl", figures, class_="pairs") if figures else None,
        tag("pre", configuration_yaml(trial, record.shapes.get(trial.name, {})), tabindex=0),
        tag("button", "Copy", type="button", class_="copy"),
        tag("p", f"Student: {trial.student}", class_="soft") if trial.student else None,
        class_="configuration member" if is_member else "configuration",
        data_trial=trial.name,
        data_first=is_first,
    )


def configuration_yaml(trial: Trial, shape: dict[str, Value]) -> str:
    """The searched keys as a section of the experiment's file, the student's shape as a comment."""
    tree: dict[str, Any] = {}
    for key, value in trial.values.items():
        *path, last = key.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                break
        else:
            node[last] = value
    text = write_yaml(tree, allow_unicode=True) if tree else ""
    resolved = [f"{k.rpartition('.')[2]} {v}" for k, v in shape.items() if k not in trial.values]
    return text + (f"# student: {', '.join(resolved)}\n" if resolved else "")
