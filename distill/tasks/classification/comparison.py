"""The rows of the comparison: every model on the test split once, with its size and latency."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from distill.aggregation import Aggregation, OracleDomain, Routed, Single, UniformMean
from distill.data.corpus import Corpus
from distill.data.inputs import open_inputs
from distill.evaluation.efficiency import Efficiency, latency_ms, measure_on_cpu
from distill.evaluation.rows import Role, Row
from distill.experts.partition import Parts
from distill.models.load import load_classifier
from distill.records import keywords_of
from distill.tasks.classification.predict import predict, predict_teachers
from distill.tasks.classification.split import Split
from distill.tasks.plan import Plan
from distill.teachers.probability import ProbabilityModel, is_pickle, load_pickled
from distill.teachers.served import ServedTeacher
from distill.teachers.setup import Guidance
from distill.training.fit import Job, fit_and_save, load_best
from distill.training.interrupt import StopOnSignal
from distill.training.specs import Data


def row_of(split: Split, name: str, role: Role, predicted_R: np.ndarray) -> Row:
    return Row(
        name=name,
        role=role,
        accuracy=split.accuracy(predicted_R),
        f1=split.confusion(predicted_R).f1,
        per_domain=split.per_domain(predicted_R),
    )


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
    if (corpus.homes_of(corpus.rows("test"), names) >= 0).all():
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
    guidance: Guidance,
    parts: Parts | None,
    test: Split,
    interrupt: StopOnSignal,
) -> TeacherComparison:
    """Every teacher on every test row, and the ensembles that need no trained weights."""
    names = [t.name for t in guidance.teachers]
    ensembles = _ensembles(guidance.aggregation, plan.corpus, names)
    everyone = replace(guidance, aggregation=guidance.aggregation.asking_all())
    with everyone.open(data, "driver-test") as stream:
        batches = test.batches(data.open())
        predicted = predict_teachers(
            stream,
            batches,
            names,
            ensembles,
            lambda rows: plan.corpus.homes_of(rows, names),
            interrupt.is_set,
        )
    found = predicted.classes_R
    costs = {t.name: _teacher_cost(t, plan) for t in guidance.teachers}
    rows = []
    for name in names:
        row = costed(row_of(test, name, "expert", found[name]), costs[name])
        if parts is not None and name in parts.names:
            is_own_R = parts.of("test") == parts.names.index(name)
            hits_R = found[name] == test.labels_R
            row = replace(
                row,
                in_domain=float(hits_R[is_own_R].mean()) if is_own_R.any() else None,
                out_of_domain=float(hits_R[~is_own_R].mean()) if (~is_own_R).any() else None,
            )
        rows.append(row)
    router = _teacher_cost(guidance.router, plan) if guidance.router else None
    for name, ensemble in ensembles.items():
        used = [*costs.values(), *([router] if router and ensemble.needs_router() else [])]
        row = row_of(test, name, "mix", found[name])
        params, sizes = [c.params for c in used], [c.size_mb for c in used]
        rows.append(replace(row, params=_sum(params), size_mb=_sum(sizes)))
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
        is_asked_to_stop=lambda: stop is not None and Path(stop).exists(),
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
    return replace(row_of(test, name, "baseline", predicted_R), params=int(weights))


def costed(row: Row, cost: Efficiency | ObjectCost) -> Row:
    return replace(row, params=cost.params, size_mb=cost.size_mb, latency_ms=cost.latency_ms)


def relative(rows: list[Row], teacher: Row | None) -> list[Row]:
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
