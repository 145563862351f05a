"""What MLflow's pages show of an experiment: its kind, notes, columns and charts, and links there.

MLflow keeps all of it in tags. The columns and charts are a *shared view*, which a link names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from distill.config import Experiment
from distill.metrics import LATENCY, SIZE, TaskMetrics, of_task

NOTE = "mlflow.note.content"
"""Tag of an experiment and of a run: a text in Markdown, shown as its description."""
VIEW = "distill"
"""The shared view; a link names it."""
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Without it MLflow 3 opens the page of traces, which is empty."""
ROLES = {
    "expert": "A teacher of this run, measured on the test split (`test.*`).",
    "mix": "The aggregated teachers, measured on the test split (`test.*`).",
    "baseline": "A baseline for the student, measured on the test split (`test.*`).",
    "link": "An intermediate link of this run's chain: a student that is the next one's teacher, "
    "measured on the test split (`test.*`).",
}


def runs_link(server: str, experiment_id: str) -> str:
    """The table of the experiment's runs, with the columns of :func:`view_state`."""
    page = f"{server}/#/experiments/{experiment_id}/runs"
    return f"{page}?viewStateShareKey={VIEW}&workflowType=machine_learning"


def compare_link(server: str, experiment_id: str) -> str:
    """The same runs as charts: accuracy (perplexity) against size and latency."""
    return f"{runs_link(server, experiment_id)}&compareRunsMode=CHART"


def view_state(measures: TaskMetrics) -> str:
    """Columns, order and charts of the experiment's runs, as MLflow's pages read them (JSON)."""
    qualities = (measures.quality, measures.test_quality)
    metrics = [*(one.name for one in qualities), *measures.overview, SIZE, LATENCY]
    params = ["kd.temperature", "kd.alpha", "objective.type", "aggregation.type"]
    columns = [_column("tags", "role")]
    columns += [_column("metrics", name) for name in metrics]
    columns += [_column("params", name) for name in params]
    charts = [_scatter(one.name, cost) for one in qualities for cost in (SIZE, LATENCY)]
    section = {
        "uuid": VIEW,
        "name": f"{measures.quality.head.capitalize()} against size and latency",
        "display": True,
        "isReordered": True,
        "deleted": False,
        "isGenerated": False,
        "columns": 2,
        "cardHeight": 360,
    }
    state = {
        "orderByKey": _column("metrics", measures.quality.name),
        "orderByAsc": measures.quality.mode == "min",
        "selectedColumns": columns,
        "columnOrder": columns,
        "runsHiddenMode": "SHOW_ALL",
        "compareRunSections": [section],
        "compareRunCharts": charts,
        "isAccordionReordered": True,
    }
    return json.dumps(state)


def _column(kind: str, name: str) -> str:
    return f"{kind}.`{name}`"


def _scatter(quality: str, cost: str) -> dict[str, Any]:
    return {
        "type": "SCATTER",
        "uuid": f"{VIEW}-{quality}-{cost}",
        "metricSectionId": VIEW,
        "deleted": False,
        "isGenerated": False,
        "displayName": f"{quality} against {cost}",
        "runsCountToCompare": 100,
        "xaxis": {"key": cost, "type": "METRIC"},
        "yaxis": {"key": quality, "type": "METRIC"},
    }


def experiment_note(name: str, measures: TaskMetrics) -> str:
    """How to read the experiment's runs: metrics, columns, commands (Markdown)."""
    return (
        "Students distilled by *distill*: one run per training, or one per sweep with its trials "
        "as child runs. The tag `role` is `expert` (a teacher), `mix` (the aggregated teachers), "
        f"`baseline`, `link` (of a chain) or `trial`.\n\n{measures.note}"
        "- `student.size_mb`: exported float32 weights, 10⁶ bytes. "
        "`student.latency_ms`: one input on one CPU thread. `compression`: parameters of the "
        "largest teacher / parameters of the student.\n\n"
        f"Compare `{measures.quality.name}` with "
        "`student.size_mb`: the *Chart view* of the runs has both. A student is on the frontier "
        f"if no smaller one is as good.\n\n- `distill frontier {name}`: the frontier, and the best "
        f"student under a limit of size or latency\n- `distill report {name}`: everything as one "
        "HTML page\n"
    )


def run_note(experiment: Experiment, output: str) -> str:
    """Of a training or a sweep: what the student is, and its teachers (Markdown)."""
    kd, search = experiment.kd, experiment.search
    is_warm = experiment.warm_start and search is None
    kind = of_task(experiment.task).model.capitalize()
    what = kind if search is None else f"Sweep over {', '.join(f'`{key}`' for key in search.space)}"
    lines = [f"{what}, trained on `{experiment.data.path}`."]
    if experiment.experts is not None:
        experts = experiment.experts
        lines.append(
            f"Teachers: experts trained from `{experts.base}`, one per part of the data "
            f"(`experts.partition.type: {experts.partition.type}`)."
        )
    elif experiment.teachers:
        lines.append(f"Teachers: {', '.join(f'`{t.name}`' for t in experiment.teachers)}.")
    else:
        lines.append("Without teachers: trained on the labels.")
    if experiment.has_teachers:
        text = kd.schedule.text(kd.temperature)
        lines.append(
            f"Aggregation `{experiment.aggregation.type}`, objective `{experiment.objective.type}`,"
            f" temperature {kd.temperature:g}{f' ({text})' if text else ''}, alpha {kd.alpha:g}"
            + (" where they are not searched." if search is not None else ".")
            + (" `warm_start` may choose others: see the parameters." if is_warm else "")
        )
    lines.append(f"Run folder: `{output}`; tables and plots are in the artifacts, in `report`.")
    return "\n\n".join(lines)


def child_note(role: str, params: Mapping[str, object]) -> str:
    """Of a child run, by its ``role``; "" for a role that is not known."""
    if role == "trial":
        values = ", ".join(f"`{key}` {value}" for key, value in params.items())
        return f"A student of the sweep above: {values}. The tag `distill.student` is its folder."
    return ROLES.get(role, "")
