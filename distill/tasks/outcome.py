"""The end of a run: every model on the test split once; export, table, plots, MLflow."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from distill.aggregation import TrainedWeights
from distill.aggregation.saved import save_weights
from distill.evaluation.leakage import ADVICE
from distill.evaluation.routing import MeanWeights
from distill.evaluation.rows import Row
from distill.experts.partition import Parts
from distill.export.folder import ModelCard, export
from distill.models.language_student import merged
from distill.report.plots import learning_curves, per_domain, trade_off
from distill.report.table import to_csv, to_json, to_markdown
from distill.report.weights_plot import weights_png, weights_table
from distill.run_folder import RunFolder
from distill.tasks.chained import Chained
from distill.tasks.comparison import Say
from distill.tasks.plan import Plan
from distill.teachers.setup import TeacherSetup
from distill.tracking import Tracker
from distill.training.fit import load_best
from distill.training.fitted import history
from distill.training.interrupt import StopOnSignal
from distill.training.job import Job
from distill.wording import percent


@dataclass(frozen=True)
class Outcome:
    """The result of a run."""

    rows: list[Row]
    metrics: dict[str, float]
    """The distilled student's, under the stable names."""
    student: Path
    report: Path
    histories: dict[str, list[dict[str, Any]]]
    """metrics.jsonl of the student, the baselines and the links of a chain."""
    open_command: str = ""
    """Opens MLflow."""

    def record(self, tracker: Tracker, seconds: float) -> None:
        """Log everything to MLflow: the student in the main run, other rows as its children."""
        metrics = self.metrics | {"time.total_s": seconds}
        step = max((int(h[-1]["step"]) for h in self.histories.values() if h), default=0)
        tracker.metrics(metrics, step)
        for row in self.rows:
            if row.role != "student":
                role = {"role": row.role}
                history = self.histories.get(row.name, [])
                tracker.child(row.name, role, row.metrics, role, history)
        tracker.artifact(self.report, "report")
        if tracker.tracking.log_model:
            tracker.model(self.student, "student")


def evaluate(
    plan: Plan,
    run: RunFolder,
    chained: Chained,
    baselines: list[Job],
    parts: Parts | None,
    interrupt: StopOnSignal,
    say: Say,
) -> Outcome:
    """Test once: teachers and their ensembles, baselines, links of a chain, the student; then
    export it.

    The teachers of ``chained.first`` must be served, no others."""
    student, first = chained.student, chained.first
    module = load_best(student)
    # Weights that the aggregation trains are in the module that was distilled with them.
    distilled = module if first is student else load_best(first)
    teacher_setup = first.teacher_setup
    if teacher_setup is not None and first.aggregation is not None:
        teacher_setup = replace(teacher_setup, aggregation=first.aggregation)
    stop = interrupt.is_set
    compared = plan.task.comparison(plan, student.data, teacher_setup, stop, parts, distilled)
    rows = compared.measure(student, module, say)
    rows += compared.baselines(baselines)
    rows += [replace(compared.link(link.job), note=link.note) for link in chained.links]
    row, cost = compared.student(say)
    rows = compared.noted(compared.related([*rows, row]))
    for row in rows:
        if row.note.endswith(ADVICE):
            say(f"warning: {row.name} ({percent(row.accuracy)}) {row.note}")
    metrics = compared.metrics(rows[-1], cost)
    compared.report(run.report)
    if compared.weights is not None:
        assert teacher_setup is not None and distilled.router is not None
        report_weights(run.report, teacher_setup, distilled.router, compared.weights, say)
    say("exporting the student and writing the report")
    data, model_card = student.data, card(plan, teacher_setup, metrics)
    exported = merged(module.student)
    export(exported, data.tokenizer, run.student, model_card, data.reading, data.chat)
    jobs = [student, *baselines, *(link.job for link in chained.links)]
    histories = {job.name: history(job) for job in jobs}
    write_report(run.report, rows, histories, metrics)
    return Outcome(rows, metrics, run.student, run.report, histories)


def report_weights(
    folder: Path, teacher_setup: TeacherSetup, network: nn.Module, weights: MeanWeights, say: Say
) -> None:
    """The network, and its mean weights on the test split as a line, a table and a plot."""
    assert isinstance(teacher_setup.aggregation, TrainedWeights)
    save_weights(folder / "aggregation", teacher_setup.aggregation, weights.names, network)
    (folder / "weights.md").write_text(weights_table(weights), "utf-8")
    weights_png(weights, folder / "weights.png")
    means = zip(weights.names, weights.by_domain()["all"], strict=True)
    shown = ", ".join(f"{name} {mean:.2f}" for name, mean in means)
    say(f"{teacher_setup.aggregation.type}: mean weights on the test split: {shown}")


def card(plan: Plan, teacher_setup: TeacherSetup | None, metrics: dict[str, float]) -> ModelCard:
    experiment = plan.experiment
    return ModelCard(
        name=experiment.tracking.experiment or Path(experiment.output).name,
        teachers=tuple(t.name for t in teacher_setup.teachers) if teacher_setup else (),
        aggregation=(teacher_setup or experiment).aggregation.type,
        objective=experiment.objective.type,
        temperature=experiment.kd.temperature,
        schedule=experiment.kd.schedule.text(experiment.kd.temperature),
        alpha=experiment.kd.alpha,
        data_fingerprint=plan.corpus.fingerprint,
        metrics=metrics,
    )


def write_report(
    folder: Path,
    rows: list[Row],
    histories: dict[str, list[dict[str, Any]]],
    metrics: dict[str, float],
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.md").write_text(to_markdown(rows), "utf-8")
    (folder / "table.csv").write_text(to_csv(rows), "utf-8")
    (folder / "table.json").write_text(to_json(rows), "utf-8")
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1))
    trade_off(rows, folder / "trade_off.png")
    per_domain(rows, folder / "per_domain.png")
    learning_curves(histories, folder / "learning_curves.png")
