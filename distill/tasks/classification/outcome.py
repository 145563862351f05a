"""The end of a run: every model on the test split once; export, table, plots, MLflow."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from distill.aggregation import Routed, TrainedWeights
from distill.aggregation.saved import save_weights
from distill.config import TfidfBaseline
from distill.data.corpus import Corpus
from distill.evaluation.calibration import calibration
from distill.evaluation.efficiency import Efficiency, measure_on_cpu
from distill.evaluation.leakage import ADVICE, suspicious
from distill.evaluation.majority import majority
from distill.evaluation.relations import Relations, ece_gap, violations
from distill.evaluation.routing import MeanWeights, Routing, routing_of
from distill.evaluation.rows import MAJORITY, Row
from distill.experts.partition import Parts
from distill.export.folder import ModelCard, export
from distill.report.plots import learning_curves, per_domain, trade_off
from distill.report.router_plot import router
from distill.report.table import to_csv, to_json, to_markdown
from distill.report.weights_plot import weights_plot, weights_table
from distill.run_folder import RunFolder
from distill.tasks.chained import Chained
from distill.tasks.classification.comparison import (
    TeacherComparison,
    costed,
    fit_row,
    relative,
    row_of,
    teacher_rows,
    tfidf_row,
)
from distill.tasks.classification.predict import Predicted, predict
from distill.tasks.classification.split import Split
from distill.tasks.plan import Plan
from distill.teachers.setup import Guidance
from distill.tracking import Tracker
from distill.training.fit import Job, load_best
from distill.training.fitted import best_evaluation, history
from distill.training.interrupt import StopOnSignal
from distill.wording import counted, percent

Say = Callable[[str], None]


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
                tracker.child(row.name, role, row.metrics(), role, history)
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
    """Test once: experts in and out of their domain, ensembles, baselines, links of a chain, the
    student; then export it.

    The teachers of ``chained.first`` must be served, no others."""
    test = Split(plan.corpus, "test")
    student, first = chained.student, chained.first
    tokens = student.data.open()
    rows: list[Row] = []
    module = load_best(student)
    # Weights that the aggregation trains are in the module that was distilled with them.
    taught = module if first is student else load_best(first)
    guidance = first.guidance
    routing: Routing | None = None
    weights: MeanWeights | None = None
    eval_metrics = best_evaluation(student)
    teacher_row: Row | None = None
    if guidance is None:
        say("evaluating the student on the test split")
        predicted = predict(module, test.batches(tokens), is_asked_to_stop=interrupt.is_set)
    else:
        assert first.aggregation is not None
        guidance = replace(guidance, aggregation=first.aggregation)
        say("evaluating teachers and student on the validation and test splits")
        compared = teacher_rows(plan, student.data, guidance, parts, test, interrupt)
        rows += compared.rows
        routing = _routing(guidance, compared, test)
        validation = Split(plan.corpus, "validation")
        with guidance.open(student.data, "driver") as stream:
            seen = predict(taught, validation.batches(tokens), stream, interrupt.is_set)
            predicted = predict(taught, test.batches(tokens), stream, interrupt.is_set)
        if taught is not module:
            own = predict(module, test.batches(tokens), is_asked_to_stop=interrupt.is_set)
            predicted = replace(predicted, student_RC=own.student_RC)
        assert seen.teacher_R is not None and predicted.teacher_R is not None
        teacher_accuracy = validation.accuracy(seen.teacher_R)
        eval_metrics["eval.teacher_accuracy"] = teacher_accuracy
        if teacher_accuracy > 0:
            eval_metrics["eval.retention"] = eval_metrics["eval.accuracy"] / teacher_accuracy
        teacher_row = row_of(test, guidance.aggregation.type, "mix", predicted.teacher_R)
        if isinstance(guidance.aggregation, TrainedWeights):
            weights = _mean_weights(plan, guidance, predicted, test)
            rows.append(_trained_row(rows, teacher_row))
    if plan.experiment.baselines:
        num = counted(len(plan.experiment.baselines), "baseline")
        say(f"evaluating {num} on the test split")
    baseline_rows = [fit_row(job, test, "baseline") for job in baselines]
    for baseline in plan.experiment.baselines:
        if isinstance(baseline, TfidfBaseline):
            baseline_rows.append(tfidf_row(baseline.name, plan, test))
    link_rows = [replace(fit_row(link.job, test, "link"), note=link.note) for link in chained.links]
    say("measuring the student's latency on one CPU thread")
    cost = measure_on_cpu(module.student, plan.experiment.data.max_length)
    student_row = costed(row_of(test, "student", "student", predicted.student_R), cost)
    rows += [*baseline_rows, *link_rows, student_row]
    rows = noted(relative(rows, teacher_row), test, {t.name for t in plan.experiment.teachers})
    for row in rows:
        if row.note.endswith(ADVICE):
            say(f"warning: {row.name} ({percent(row.accuracy)}) {row.note}")
    metrics = _metrics(plan, rows[-1], cost, eval_metrics, teacher_row)
    metrics |= _trust(predicted, test)
    if routing is not None:
        metrics |= routing.metrics(_own_experts(parts, routing))
        router(routing, run.report / "router.png")
    if weights is not None:
        assert guidance is not None
        metrics |= weights.metrics()
        report_weights(run.report, guidance, taught.router, weights, say)
    say("exporting the student and writing the report")
    model_card = card(plan, guidance, metrics)
    export(module.student, student.data.tokenizer, run.student, model_card, student.data.reading)
    jobs = [student, *baselines, *(link.job for link in chained.links)]
    histories = {job.name: history(job) for job in jobs}
    write_report(run.report, rows, histories, metrics)
    return Outcome(rows, metrics, run.student, run.report, histories)


def measure_teachers(plan: Plan, job: Job, interrupt: StopOnSignal) -> float:
    """The aggregated teachers of ``job`` on validation, by the metric that selects its weights.

    The job is trained, with any weights of the aggregation; its teachers are served."""
    assert job.guidance is not None
    validation = Split(plan.corpus, "validation")
    with job.guidance.open(job.data, "driver") as stream:
        batches = validation.batches(job.data.open())
        predicted_R = predict(load_best(job), batches, stream, interrupt.is_set).teacher_R
    assert predicted_R is not None
    if job.selection.metric == "eval.f1":
        return validation.confusion(predicted_R).f1
    return validation.accuracy(predicted_R)


def _routing(guidance: Guidance, compared: TeacherComparison, test: Split) -> Routing | None:
    """The router's choices on the test split; None where the run's aggregation has none."""
    if not isinstance(guidance.aggregation, Routed) or compared.router_logits_RK is None:
        return None
    names = [t.name for t in guidance.teachers]
    logits_RK = compared.router_logits_RK
    return routing_of(guidance.aggregation, names, logits_RK, test.domains_R, test.domain_names)


def _mean_weights(plan: Plan, guidance: Guidance, predicted: Predicted, test: Split) -> MeanWeights:
    """The trained weights of the teachers on the test split."""
    assert predicted.weights_RK is not None
    names = tuple(t.name for t in guidance.teachers)
    weights = MeanWeights(names, test.domain_names)
    homes_R = torch.from_numpy(plan.corpus.homes_of(test.rows, names))
    weights_KR = torch.from_numpy(predicted.weights_RK.T)
    weights.add(weights_KR, homes_R, torch.from_numpy(test.domains_R))
    return weights


def _trained_row(rows: list[Row], teacher: Row) -> Row:
    """The row of the ensemble with trained weights, as large as the uniform mean."""
    mean = next(row for row in rows if row.role == "mix")
    return replace(
        teacher, name=f"{teacher.name} ensemble", params=mean.params, size_mb=mean.size_mb
    )


def report_weights(
    folder: Path, guidance: Guidance, network: nn.Module, weights: MeanWeights, say: Say
) -> None:
    """The network, and its mean weights on the test split as a line, a table and a plot."""
    assert isinstance(guidance.aggregation, TrainedWeights)
    save_weights(folder / "aggregation", guidance.aggregation, weights.names, network)
    (folder / "weights.md").write_text(weights_table(weights), "utf-8")
    weights_plot(weights, folder / "weights.png")
    means = zip(weights.names, weights.by_domain()["all"], strict=True)
    shown = ", ".join(f"{name} {mean:.2f}" for name, mean in means)
    say(f"{guidance.aggregation.type}: mean weights on the test split: {shown}")


def _own_experts(parts: Parts | None, routing: Routing) -> np.ndarray | None:
    """The expert of each test row's part, -1 where it has none; None without known parts."""
    if parts is None:
        return None
    index = {name: k for k, name in enumerate(routing.names)}
    return np.array([index.get(name, -1) for name in parts.names])[parts.of("test")]


def _metrics(
    plan: Plan, row: Row, cost: Efficiency, eval_metrics: dict[str, float], teacher: Row | None
) -> dict[str, float]:
    assert row.accuracy is not None and row.f1 is not None
    metrics = eval_metrics | {
        "student.params": float(cost.params),
        "student.size_mb": cost.size_mb,
        "student.latency_ms": cost.latency_ms,
        "student.gflops": cost.gflops,
        "test.accuracy": row.accuracy,
        "test.f1": row.f1,
    }
    metrics |= {f"test.accuracy.{d}": value for d, value in row.per_domain.items()}
    if teacher is not None and teacher.accuracy and row.retention:
        kd = plan.experiment.kd
        metrics |= {
            "test.retention": row.retention,
            "test.teacher_accuracy": teacher.accuracy,
            "kd.temperature": kd.temperature,
            "kd.alpha": kd.alpha,
        }
        if row.compression is not None:
            metrics["compression"] = row.compression
    return metrics


def _trust(predicted: Predicted, test: Split) -> dict[str, float]:
    """Calibration, and how far the student behaves like its teachers on the test split."""
    metrics = {"test.ece": calibration(predicted.student_RC, test.labels_R).ece}
    if predicted.teacher_RC is None:
        return metrics
    relations = Relations()
    rates = violations(predicted.teacher_RC, predicted.student_RC, relations).rates()
    metrics |= {f"fidelity.{name}": rate for name, rate in rates.items()}
    gap = ece_gap(predicted.teacher_RC, predicted.student_RC, test.labels_R, relations.num_bins)
    return metrics | {"fidelity.ece_gap": gap}


def noted(rows: list[Row], test: Split, ready: set[str]) -> list[Row]:
    """The rows, with a note on students, links and baselines that are no better than the largest
    class, and on those of the ``ready`` teachers that may have been trained on test rows."""
    largest = majority(test.labels_R, [str(c) for c in range(test.num_classes)])
    own: dict[str, float] = {}
    others: dict[str, float] = {}
    for row in rows:
        if row.accuracy is not None and row.role != "mix":
            is_ready = row.role == "expert" and row.name in ready
            (own if is_ready else others)[f"{row.role} {row.name}"] = row.accuracy
    found = suspicious(own, others)

    def note(row: Row) -> str:
        if f"{row.role} {row.name}" in found:
            return ADVICE
        is_trained = row.role in ("student", "link", "baseline") and row.accuracy is not None
        return largest.note(row.accuracy) if is_trained else ""  # type: ignore[arg-type]

    # A link that was dropped has a note already.
    return [replace(row, note="; ".join(filter(None, (row.note, note(row))))) for row in rows]


def card(plan: Plan, guidance: Guidance | None, metrics: dict[str, float]) -> ModelCard:
    experiment = plan.experiment
    return ModelCard(
        name=experiment.tracking.experiment or Path(experiment.output).name,
        teachers=tuple(t.name for t in guidance.teachers) if guidance else (),
        aggregation=(guidance or experiment).aggregation.type,
        objective=experiment.objective.type,
        temperature=experiment.kd.temperature,
        schedule=experiment.kd.schedule.text(experiment.kd.temperature),
        alpha=experiment.kd.alpha,
        data_fingerprint=plan.corpus.fingerprint,
        metrics=metrics,
    )


def majority_rates(corpus: Corpus) -> dict[str, float | None]:
    """What accuracy must exceed: the share of the most frequent class of test and validation."""
    rates = {name: Split(corpus, name).majority_rate() for name in ("test", "validation")}
    return {MAJORITY: rates["test"], f"{MAJORITY}.validation": rates["validation"]}


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
