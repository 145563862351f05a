"""The rows of the comparison: every model on the test split once, with its size and latency."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill.aggregation import (
    Aggregation,
    OracleDomain,
    Routed,
    Single,
    TrainedWeights,
    UniformMean,
)
from distill.config import TfidfBaseline
from distill.data.corpus import Corpus
from distill.data.inputs import open_inputs
from distill.evaluation.calibration import calibration
from distill.evaluation.efficiency import Efficiency, latency_ms, measure_on_cpu
from distill.evaluation.leakage import ADVICE, suspicious
from distill.evaluation.majority import majority
from distill.evaluation.relations import Relations, ece_gap, violations
from distill.evaluation.routing import MeanWeights, Routing, routing_of
from distill.evaluation.rows import Role, Row, in_domains
from distill.experts.partition import Parts
from distill.metrics import IN_DOMAIN, LATENCY, OUT_OF_DOMAIN, SIZE
from distill.models.load import load_classifier
from distill.records import keywords_of
from distill.report.router_plot import router_png
from distill.tasks.base import IsStopped
from distill.tasks.classification.predict import Predicted, predict, predict_teachers
from distill.tasks.classification.split import Split
from distill.tasks.comparison import Comparison, Say
from distill.tasks.plan import Plan
from distill.teachers.probability import ProbabilityModel, is_pickle, load_pickled
from distill.teachers.served import ServedTeacher
from distill.teachers.setup import TeacherSetup
from distill.training.fit import fit_and_save, load_best
from distill.training.fitted import best_evaluation
from distill.training.job import Data, Job
from distill.training.trainable import Trainable
from distill.wording import counted


def row_of(split: Split, name: str, role: Role, predicted_R: np.ndarray) -> Row:
    f1, accuracy = split.confusion(predicted_R).f1, split.accuracy(predicted_R)
    of_domains = in_domains("test.accuracy.", role, split.per_domain(predicted_R))
    return Row(name, role, {"test.accuracy": accuracy, "test.f1": f1} | of_domains)


def row_name(aggregation: Aggregation) -> str | None:
    """Of the aggregation's own row in the comparison; None where its weights must be trained."""
    if isinstance(aggregation, Single):
        return aggregation.teacher  # the teacher's own row
    if isinstance(aggregation, UniformMean):
        return "uniform mean"
    if isinstance(aggregation, OracleDomain):
        return "oracle domain"
    if isinstance(aggregation, Routed):
        return f"routed ensemble, k={aggregation.k}"
    return f"{aggregation.type} ensemble" if aggregation.build(1, 1, 1) is None else None


def _ensembles(
    aggregation: Aggregation, corpus: Corpus, names: list[str]
) -> dict[str, Aggregation]:
    """By name: the uniform mean, the oracle where every row has a teacher, and the run's own."""
    ensembles: dict[str, Aggregation] = {"uniform mean": UniformMean()}
    if (corpus.domain_teachers_of(corpus.rows("test"), names) >= 0).all():
        ensembles["oracle domain"] = OracleDomain()
    own = row_name(aggregation)
    if own is not None and own not in names:
        ensembles.setdefault(own, aggregation)
    return ensembles


@dataclass(frozen=True)
class TeacherComparison:
    rows: list[Row]
    router_logits_RK: np.ndarray | None
    """Of the test split, raw; None without a router."""


def teacher_rows(
    plan: Plan,
    data: Data,
    teacher_setup: TeacherSetup,
    parts: Parts | None,
    test: Split,
    is_stopped: IsStopped,
) -> TeacherComparison:
    """Every teacher on every test row, and the ensembles that need no trained weights."""
    names = [t.name for t in teacher_setup.teachers]
    ensembles = _ensembles(teacher_setup.aggregation, plan.corpus, names)
    all_teachers = replace(teacher_setup, aggregation=teacher_setup.aggregation.querying_all())
    with all_teachers.open(data, "driver-test") as stream:
        batches = test.batches(data.open())
        predicted = predict_teachers(
            stream,
            batches,
            names,
            ensembles,
            lambda rows: plan.corpus.domain_teachers_of(rows, names),
            is_stopped,
        )
    found = predicted.classes_R
    costs = {t.name: _teacher_cost(t, plan) for t in teacher_setup.teachers}
    rows = []
    for name in names:
        row = costed(row_of(test, name, "expert", found[name]), costs[name])
        if parts is not None and name in parts.names:
            is_own_R = parts.of("test") == parts.names.index(name)
            hits_R = found[name] == test.labels_R
            own = {
                IN_DOMAIN: float(hits_R[is_own_R].mean()) if is_own_R.any() else None,
                OUT_OF_DOMAIN: float(hits_R[~is_own_R].mean()) if (~is_own_R).any() else None,
            }
            row = row.having(own)
        rows.append(row)
    router = _teacher_cost(teacher_setup.router, plan) if teacher_setup.router else None
    for name, ensemble in ensembles.items():
        used = [*costs.values(), *([router] if router and ensemble.needs_router() else [])]
        row = row_of(test, name, "mix", found[name])
        params, sizes = [c.params for c in used], [c.size_mb for c in used]
        rows.append(row.having({"student.params": _sum(params), SIZE: _sum(sizes)}))
    return TeacherComparison(rows, predicted.router_logits_RK)


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


def _teacher_cost(teacher: ServedTeacher, plan: Plan) -> Efficiency | ObjectCost:
    if is_pickle(teacher.folder):
        pickled = load_pickled(teacher.folder, teacher.serving.allow_pickle)
        inputs = open_inputs(plan.corpus, teacher.folder, 0)
        row = keywords_of(inputs.padded(plan.corpus.rows("test")[:1]))
        return ObjectCost(latency_ms(lambda: ProbabilityModel(pickled)(**row)))
    model = load_classifier(teacher.folder, allow_pickle=teacher.serving.allow_pickle)
    return measure_on_cpu(model, plan.experiment.data.max_length)


def predictions_file(job: Job) -> Path:
    """Where :func:`keep_predictions` leaves the predicted classes of the test split, int64 [R]."""
    return Path(job.folder) / "predictions.npy"


def fit_and_test(job: Job) -> None:
    """A classifier's fit (see :func:`fit_and_save`) and its predictions, in one process; does what
    is missing."""
    fit_and_save(job)
    keep_predictions(job)


def keep_predictions(job: Job) -> None:
    """Those of a trained classifier on the test split, once. Raises Interrupted once
    ``job.stop_file`` exists."""
    kept, stop = predictions_file(job), job.stop_file
    if kept.exists():
        return
    inputs: Any = job.data.open()
    predicted = predict(
        load_best(job),
        Split(inputs.corpus, "test").batches(inputs),
        should_stop=lambda: stop is not None and Path(stop).exists(),
    )
    partial = kept.with_name("predictions.partial.npy")
    np.save(partial, predicted.student_R, allow_pickle=False)
    os.replace(partial, kept)


def fit_row(job: Job, test: Split, role: Role) -> Row:
    """Of a trained job; its predictions are made here unless its task has made them. The latency is
    measured here: in a task other processes would have slowed it down."""
    keep_predictions(job)
    row = row_of(test, job.name, role, np.load(predictions_file(job), allow_pickle=False))
    return costed(row, measure_on_cpu(load_best(job).student, job.data.max_length))


def tfidf_row(name: str, plan: Plan, test: Split) -> Row:
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
    return row_of(test, name, "baseline", predicted_R).having({"student.params": int(weights)})


def costed(row: Row, cost: Efficiency | ObjectCost) -> Row:
    costs = {"student.params": cost.params, SIZE: cost.size_mb, LATENCY: cost.latency_ms}
    return row.having(costs)


def relative(rows: list[Row], teacher: Row | None) -> list[Row]:
    """Retention and compression of the students and baselines against the teachers."""
    experts = [row.params for row in rows if row.role == "expert"]
    sizes = [params for params in experts if params is not None]
    if teacher is None or not teacher.accuracy:
        return rows
    return [
        row
        if row.role in ("expert", "mix") or row.accuracy is None or row.params is None
        else row.having(
            {
                "test.retention": row.accuracy / teacher.accuracy,
                "compression": max(sizes) / row.params if sizes == experts else None,
            }
        )
        for row in rows
    ]


class Classifiers(Comparison):
    """On accuracy and F1, with retention and fidelity against the aggregated teachers."""

    def __init__(
        self,
        plan: Plan,
        data: Data,
        teacher_setup: TeacherSetup | None,
        is_stopped: IsStopped,
        parts: Parts | None = None,
        distilled: Trainable | None = None,
    ) -> None:
        self._plan = plan
        self._data = data
        self._teacher_setup = teacher_setup
        self._is_stopped = is_stopped
        self._parts = parts
        self._distilled = distilled
        self._test = Split(plan.rows, "test")
        self._routing: Routing | None = None
        self._teacher: Row | None = None
        """The aggregated teachers."""

    def teachers(self) -> list[Row]:
        return self._compared().rows if self._teacher_setup is not None else []

    def measure(self, student: Job, module: Trainable, say: Say) -> list[Row]:
        self._student, self._module = student, module
        self._eval_metrics = best_evaluation(student)
        if self._teacher_setup is None:
            say("evaluating the student on the test split")
            self._predicted = self._predict(module)
            rows = []
        else:
            say("evaluating teachers and student on the validation and test splits")
            rows = self._with_teachers(self._teacher_setup, module)
        if self._plan.experiment.baselines:
            num = counted(len(self._plan.experiment.baselines), "baseline")
            say(f"evaluating {num} on the test split")
        return rows

    def _with_teachers(self, teacher_setup: TeacherSetup, module: Trainable) -> list[Row]:
        test, tokens, distilled = self._test, self._data.open(), self._distilled or module
        compared = self._compared()
        rows = compared.rows
        self._routing = _routing(teacher_setup, compared, test)
        validation = Split(self._plan.rows, "validation")
        with teacher_setup.open(self._data, "driver") as stream:
            seen = predict(distilled, validation.batches(tokens), stream, self._is_stopped)
            predicted = predict(distilled, test.batches(tokens), stream, self._is_stopped)
        if distilled is not module:
            predicted = replace(predicted, student_RC=self._predict(module).student_RC)
        assert seen.teacher_R is not None and predicted.teacher_R is not None
        self._predicted = predicted
        accuracy = validation.accuracy(seen.teacher_R)
        self._eval_metrics["eval.teacher_accuracy"] = accuracy
        if accuracy > 0:
            self._eval_metrics["eval.retention"] = self._eval_metrics["eval.accuracy"] / accuracy
        self._teacher = row_of(test, teacher_setup.aggregation.type, "mix", predicted.teacher_R)
        if isinstance(teacher_setup.aggregation, TrainedWeights):
            self.weights = _mean_weights(self._plan, teacher_setup, predicted, test)
            rows.append(_trained_row(rows, self._teacher))
        return rows

    def _compared(self) -> TeacherComparison:
        assert self._teacher_setup is not None
        return teacher_rows(
            self._plan, self._data, self._teacher_setup, self._parts, self._test, self._is_stopped
        )

    def _predict(self, module: Trainable) -> Predicted:
        """Of the student alone."""
        batches = self._test.batches(self._data.open())
        return predict(module, batches, should_stop=self._is_stopped)

    def baselines(self, jobs: Sequence[Job]) -> list[Row]:
        rows = [fit_row(job, self._test, "baseline") for job in jobs]
        for baseline in self._plan.experiment.baselines:
            if isinstance(baseline, TfidfBaseline):
                rows.append(tfidf_row(baseline.name, self._plan, self._test))
        return rows

    def link(self, job: Job) -> Row:
        return fit_row(job, self._test, "link")

    def student(self, say: Say) -> tuple[Row, Efficiency]:
        say("measuring the student's latency on one CPU thread")
        cost = measure_on_cpu(self._module.student, self._plan.experiment.data.max_length)
        row = row_of(self._test, "student", "student", self._predicted.student_R)
        return costed(row, cost), cost

    def related(self, rows: list[Row]) -> list[Row]:
        own = row_name(self._plan.experiment.aggregation)
        ensemble = next((row for row in rows if row.name == own), None)
        return relative(rows, self._teacher or ensemble)

    def noted(self, rows: list[Row]) -> list[Row]:
        return noted(rows, self._test, {t.name for t in self._plan.experiment.teachers})

    def metrics(self, row: Row, cost: Efficiency) -> dict[str, float]:
        metrics = _metrics(self._plan, row, cost, self._eval_metrics, self._teacher)
        metrics |= _trust(self._predicted, self._test)
        if self._routing is not None:
            metrics |= self._routing.metrics(_own_experts(self._parts, self._routing))
        if self.weights is not None:
            metrics |= self.weights.metrics()
        return metrics

    def report(self, folder: Path) -> None:
        if self._routing is not None:
            router_png(self._routing, folder / "router.png")

    def tested(self, job: Job, module: Trainable) -> dict[str, float]:
        test, batches = self._test, self._test.batches(job.data.open())
        if job.teacher_setup is None:
            seen = predict(module, batches, should_stop=self._is_stopped)
        else:
            with job.teacher_setup.open(job.data, "sweep-test") as stream:
                seen = predict(module, batches, stream, self._is_stopped)
        row = row_of(test, job.name, "student", seen.student_R)
        assert row.accuracy is not None and row.f1 is not None
        metrics = {"test.accuracy": row.accuracy, "test.f1": row.f1}
        metrics |= {f"test.accuracy.{domain}": value for domain, value in row.per_domain.items()}
        if seen.teacher_R is not None and (teacher := test.accuracy(seen.teacher_R)):
            metrics |= {"test.teacher_accuracy": teacher, "test.retention": row.accuracy / teacher}
        return metrics


def _routing(
    teacher_setup: TeacherSetup, compared: TeacherComparison, test: Split
) -> Routing | None:
    """The router's choices on the test split; None where the run's aggregation has none."""
    if not isinstance(teacher_setup.aggregation, Routed) or compared.router_logits_RK is None:
        return None
    names = [t.name for t in teacher_setup.teachers]
    logits_RK = compared.router_logits_RK
    return routing_of(
        teacher_setup.aggregation, names, logits_RK, test.domains_R, test.domain_names
    )


def _mean_weights(
    plan: Plan, teacher_setup: TeacherSetup, predicted: Predicted, test: Split
) -> MeanWeights:
    """The trained weights of the teachers on the test split."""
    assert predicted.weights_RK is not None
    names = tuple(t.name for t in teacher_setup.teachers)
    weights = MeanWeights(names, test.domain_names)
    domain_teacher_R = torch.from_numpy(plan.corpus.domain_teachers_of(test.rows, names))
    weights_KR = torch.from_numpy(predicted.weights_RK.T)
    weights.add(weights_KR, domain_teacher_R, torch.from_numpy(test.domains_R))
    return weights


def _trained_row(rows: list[Row], teacher: Row) -> Row:
    """The row of the ensemble with trained weights, as large as the uniform mean."""
    mean = next(row for row in rows if row.role == "mix")
    costs = {"student.params": mean.params, SIZE: mean.size_mb}
    return replace(teacher, name=f"{teacher.name} ensemble").having(costs)


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
