"""The end of a run: every model on the test split once; table, plots, MLflow, export."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from distill.aggregation import Aggregation, Routed, UniformMean
from distill.check import Plan
from distill.config import TfidfBaseline
from distill.data.batches import Batches
from distill.data.inputs import open_inputs
from distill.evaluation.efficiency import Efficiency, latency_ms, measure
from distill.evaluation.predict import confusion, predict, predict_teachers
from distill.experts.partition import Parts
from distill.fit import Guidance, Job, TeacherSpec, load_best
from distill.interrupt import StopOnSignal
from distill.models.load import load_classifier
from distill.records import keywords_of
from distill.report.plots import learning_curves, per_domain, trade_off
from distill.report.progress import Tail
from distill.report.table import Role, Row, to_csv, to_json, to_markdown
from distill.run_folder import RunFolder
from distill.student.export import ModelCard, export
from distill.teachers.probability import ProbabilityModel, is_pickle, load_pickled
from distill.tracking import Tracker

BATCH = 64
Say = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """What the run came to."""

    rows: list[Row]
    metrics: dict[str, float]
    """The distilled student's, under the stable names."""
    student: Path
    report: Path
    histories: dict[str, list[dict[str, Any]]]
    """metrics.jsonl of the student and the baselines."""
    open_command: str = ""
    """Opens MLflow."""

    def record(self, tracker: Tracker, seconds: float) -> None:
        """Everything into MLflow: the student in the main run, the other rows as its children."""
        metrics = self.metrics | {"time.total_s": seconds}
        step = max((int(h[-1]["step"]) for h in self.histories.values() if h), default=0)
        tracker.metrics(metrics, step)
        for row in self.rows:
            if row.role != "student":
                role = {"role": row.role}
                history = self.histories.get(row.name, [])
                tracker.child(row.name, role, _row_metrics(row), role, history)
        tracker.artifact(self.report, "report")
        if tracker.tracking.log_model:
            tracker.model(self.student, "student")


def evaluate(
    plan: Plan,
    run: RunFolder,
    student: Job,
    baselines: list[Job],
    parts: Parts | None,
    interrupt: StopOnSignal,
    say: Say,
) -> Outcome:
    """Test once: experts at home and abroad, mixtures, baselines, the student; then export it."""
    test = _Split(plan, "test")
    rows: list[Row] = []
    module = load_best(student)
    guidance = student.guidance
    eval_metrics = _best_evaluation(student)
    teacher_row: Row | None = None
    if guidance is None:
        predicted = predict(module, test.batches(student), is_asked_to_stop=interrupt.is_set)
    else:
        say("asking the teachers about validation and test rows")
        teacher_rows = _teacher_rows(plan, student, guidance, parts, test, interrupt)
        rows += teacher_rows
        validation = _Split(plan, "validation")
        with guidance.open(student.data, "driver", test.num_classes) as stream:
            seen = predict(module, validation.batches(student), stream, interrupt.is_set)
            predicted = predict(module, test.batches(student), stream, interrupt.is_set)
        assert seen.teacher_R is not None and predicted.teacher_R is not None
        teacher_accuracy = validation.accuracy(seen.teacher_R)
        eval_metrics["eval.teacher_accuracy"] = teacher_accuracy
        if teacher_accuracy > 0:
            eval_metrics["eval.retention"] = eval_metrics["eval.accuracy"] / teacher_accuracy
        teacher_row = test.row(guidance.aggregation.type, "mix", predicted.teacher_R)
    say("evaluating baselines")
    baseline_rows = [_fit_row(job, test, "baseline", interrupt) for job in baselines]
    for baseline in plan.experiment.baselines:
        if isinstance(baseline, TfidfBaseline):
            baseline_rows.append(_tfidf_row(baseline.name, plan, test))
    cost = measure_on_cpu(module.student, plan.experiment.data.max_length)
    student_row = _costed(test.row("student", "student", predicted.student_R), cost)
    rows += [*baseline_rows, student_row]
    rows = _relative(rows, teacher_row)
    metrics = _metrics(plan, rows[-1], cost, eval_metrics, teacher_row)
    card = _card(plan, guidance, metrics)
    export(module.student, student.data.tokenizer, run.student, card)
    histories = {job.name: _history(job) for job in [student, *baselines]}
    _write_report(run.report, rows, histories, metrics)
    return Outcome(rows, metrics, run.student, run.report, histories)


class _Split:
    """One split's labels, domains and batches in order."""

    def __init__(self, plan: Plan, split: str) -> None:
        corpus = plan.corpus
        self.rows = corpus.rows(split)
        self.labels_R = corpus.labels_of(self.rows)
        self.domains_R = corpus.domains_of(self.rows)
        self.domain_names = corpus.domain_names
        self.num_classes = len(corpus.label_names)

    def batches(self, job: Job) -> Batches:
        return Batches(job.data.open(), self.rows, BATCH, seed=0, shuffle=False)

    def accuracy(self, predicted_R: np.ndarray) -> float:
        return float((predicted_R == self.labels_R).mean())

    def row(self, name: str, role: Role, predicted_R: np.ndarray) -> Row:
        hits_R = predicted_R == self.labels_R
        domains = {
            domain: float(hits_R[self.domains_R == d].mean())
            for d, domain in enumerate(self.domain_names)
            if (self.domains_R == d).any()
        }
        return Row(
            name=name,
            role=role,
            accuracy=self.accuracy(predicted_R),
            f1=confusion(self.labels_R, predicted_R, self.num_classes).f1,
            per_domain=domains,
        )


def _teacher_rows(
    plan: Plan,
    student: Job,
    guidance: Guidance,
    parts: Parts | None,
    test: _Split,
    interrupt: StopOnSignal,
) -> list[Row]:
    """Every teacher on every test row, and the mixtures that need no trained weights."""
    aggregation = guidance.aggregation
    mixtures: dict[str, Aggregation] = {"uniform mean": UniformMean()}
    asks_all = aggregation
    if isinstance(aggregation, Routed):
        mixtures[f"routed mix, k={aggregation.k}"] = aggregation
        asks_all = aggregation.model_copy(update={"k": "all"})
    elif aggregation.type != "mean" and aggregation.build(1, 1, 1) is None:
        mixtures[f"{aggregation.type} mix"] = aggregation
    names = [t.name for t in guidance.teachers]
    everyone = replace(guidance, aggregation=asks_all)
    with everyone.open(student.data, "driver-test", test.num_classes) as stream:
        found = predict_teachers(stream, test.batches(student), names, mixtures, interrupt.is_set)
    costs = {t.name: _teacher_cost(t, plan) for t in guidance.teachers}
    rows = []
    for name in names:
        row = _costed(test.row(name, "expert", found[name]), costs[name])
        if parts is not None and name in parts.names:
            is_home_R = parts.of("test") == parts.names.index(name)
            hits_R = found[name] == test.labels_R
            row = replace(
                row,
                home=float(hits_R[is_home_R].mean()) if is_home_R.any() else None,
                abroad=float(hits_R[~is_home_R].mean()) if (~is_home_R).any() else None,
            )
        rows.append(row)
    router = _teacher_cost(guidance.router, plan) if guidance.router else None
    for name, mixture in mixtures.items():
        used = [*costs.values(), *([router] if router and mixture.needs_router() else [])]
        row = test.row(name, "mix", found[name])
        params, sizes = [c.params for c in used], [c.size_mb for c in used]
        rows.append(replace(row, params=_sum(params), size_mb=_sum(sizes)))
    return rows


def _sum(values: Sequence[float | None]) -> float | None:
    """None where one is not known."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


@dataclass(frozen=True)
class ObjectCost:
    """Of an object with predict_proba: it has no weights that could be counted."""

    latency_ms: float
    params: float | None = None
    size_mb: float | None = None


def _teacher_cost(teacher: TeacherSpec, plan: Plan) -> Efficiency | ObjectCost:
    if is_pickle(teacher.folder):
        pickled = load_pickled(teacher.folder, teacher.serving.allow_pickle)
        inputs = open_inputs(plan.corpus, teacher.folder, 0)
        row = keywords_of(inputs.padded(plan.corpus.rows("test")[:1]))
        return ObjectCost(latency_ms(lambda: ProbabilityModel(pickled)(**row)))
    model = load_classifier(teacher.folder, allow_pickle=teacher.serving.allow_pickle)
    return measure_on_cpu(model, plan.experiment.data.max_length)


def measure_on_cpu(model: PreTrainedModel, seq_length: int) -> Efficiency:
    """One sequence on one CPU thread: comparable between machines with different core counts."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return measure(model, seq_length)
    finally:
        torch.set_num_threads(threads)


def _fit_row(job: Job, test: _Split, role: Role, interrupt: StopOnSignal) -> Row:
    module = load_best(job)
    predicted = predict(module, test.batches(job), is_asked_to_stop=interrupt.is_set)
    row = test.row(job.name, role, predicted.student_R)
    return _costed(row, measure_on_cpu(module.student, job.data.max_length))


def _tfidf_row(name: str, plan: Plan, test: _Split) -> Row:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    corpus = plan.corpus
    regression = LogisticRegression(C=10.0, max_iter=1000)
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), regression)

    def texts(split: str) -> list[str]:
        return [t if pair is None else f"{t} {pair}" for t, pair in corpus.texts(split)]

    model.fit(texts("train"), corpus.labels_of(corpus.rows("train")))
    predicted_R = np.asarray(model.predict(texts("test")), np.int64)
    coefficients: Any = regression.coef_
    weights = coefficients.size + len(coefficients)
    return replace(test.row(name, "baseline", predicted_R), params=int(weights))


def _costed(row: Row, cost: Efficiency | ObjectCost) -> Row:
    return replace(row, params=cost.params, size_mb=cost.size_mb, latency_ms=cost.latency_ms)


def _relative(rows: list[Row], teacher: Row | None) -> list[Row]:
    """Retention and compression of the students and baselines against the teachers."""
    experts = [row.params for row in rows if row.role == "expert"]
    sizes = [params for params in experts if params is not None]
    if teacher is None or not teacher.accuracy:
        return rows
    return [
        row
        if row.role in ("expert", "mix") or row.accuracy is None or row.params is None
        else replace(
            row,
            retention=row.accuracy / teacher.accuracy,
            compression=max(sizes) / row.params if sizes == experts else None,
        )
        for row in rows
    ]


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


def _row_metrics(row: Row) -> dict[str, float | None]:
    metrics: dict[str, float | None] = {
        "student.params": row.params,
        "student.size_mb": row.size_mb,
        "student.latency_ms": row.latency_ms,
        "test.accuracy": row.accuracy,
        "test.f1": row.f1,
        "test.retention": row.retention,
        "compression": row.compression,
        "test.accuracy.home": row.home,
        "test.accuracy.abroad": row.abroad,
    }
    return metrics | {f"test.accuracy.{d}": value for d, value in row.per_domain.items()}


def _card(plan: Plan, guidance: Guidance | None, metrics: dict[str, float]) -> ModelCard:
    experiment = plan.experiment
    return ModelCard(
        name=experiment.tracking.experiment or Path(experiment.output).name,
        teachers=tuple(t.name for t in guidance.teachers) if guidance else (),
        aggregation=experiment.aggregation.type,
        objective=experiment.objective.type,
        temperature=experiment.kd.temperature,
        alpha=experiment.kd.alpha,
        data_fingerprint=plan.corpus.fingerprint,
        metrics=metrics,
    )


def _history(job: Job) -> list[dict[str, Any]]:
    """The lines of a fit's metrics.jsonl."""
    return Tail(Path(job.folder) / "metrics.jsonl").read()


def _best_evaluation(job: Job) -> dict[str, float]:
    """The validation metrics of the weights that are exported."""
    best_step = json.loads((Path(job.folder) / "done.json").read_text())["best_step"]
    metrics: dict[str, float] = {}
    for line in _history(job):
        if line["step"] == best_step:
            metrics |= {n: v for n, v in line["metrics"].items() if n.startswith("eval.")}
    return metrics


def _write_report(
    folder: Path,
    rows: list[Row],
    histories: dict[str, list[dict[str, Any]]],
    metrics: dict[str, float],
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.md").write_text(to_markdown(rows))
    (folder / "table.csv").write_text(to_csv(rows))
    (folder / "table.json").write_text(to_json(rows))
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1))
    trade_off(rows, folder / "trade_off.png")
    per_domain(rows, folder / "per_domain.png")
    learning_curves(histories, folder / "learning_curves.png")
