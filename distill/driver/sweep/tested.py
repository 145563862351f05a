"""The students that a sweep keeps: their latency without company, and the test split once."""

from __future__ import annotations

from distill.data.corpus import Corpus
from distill.driver.pipeline import Driver
from distill.driver.sweep.trial import Sweep
from distill.evaluation.efficiency import measure_on_cpu
from distill.models.language import load_language_model
from distill.models.load import load_classifier
from distill.search.ledger import Entry
from distill.search.reporter import Metrics
from distill.tasks.classification.comparison import row_of
from distill.tasks.classification.predict import predict
from distill.tasks.classification.split import Split
from distill.tasks.language_model.comparison import cost_of
from distill.tasks.language_model.outcome import Tables
from distill.training.fit import Job, load_best


def timed_alone(d: Driver, sweep: Sweep, entry: Entry) -> Entry:
    """The entry with the latency of its student while no trial shares the cores."""
    d.interrupt.check()
    length = d.experiment.data.max_length
    if d.plan.blocks is None:
        cost = measure_on_cpu(load_classifier(entry.student), length)
    else:
        cost = cost_of(load_language_model(entry.student), length)
    metrics = entry.metrics | {"student.latency_ms": cost.latency_ms}
    if cost.tokens_per_s is not None:
        metrics["student.tokens_per_s"] = cost.tokens_per_s
    return sweep.ledger.write(entry, entry.status, metrics)


def tested(d: Driver, sweep: Sweep, entry: Entry) -> Entry:
    """The entry with ``test.*``: measured once, for a student that is kept."""
    if "test.accuracy" in entry.metrics:
        return entry
    job = sweep.job(entry)
    found = _classified(d, sweep, job) if d.plan.blocks is None else _written(d, job)
    return sweep.ledger.write(entry, entry.status, entry.metrics | found)


def _classified(d: Driver, sweep: Sweep, job: Job) -> Metrics:
    test = Split(Corpus(sweep.corpus), "test")
    batches, module = test.batches(job.data.open()), load_best(job)
    if job.guidance is None:
        seen = predict(module, batches, is_asked_to_stop=d.interrupt.is_set)
    else:
        with job.guidance.open(job.data, "sweep-test") as stream:
            seen = predict(module, batches, stream, d.interrupt.is_set)
    row = row_of(test, job.name, "student", seen.student_R)
    assert row.accuracy is not None and row.f1 is not None
    metrics = {"test.accuracy": row.accuracy, "test.f1": row.f1}
    metrics |= {f"test.accuracy.{domain}": value for domain, value in row.per_domain.items()}
    if seen.teacher_R is not None and (teacher := test.accuracy(seen.teacher_R)):
        metrics |= {"test.teacher_accuracy": teacher, "test.retention": row.accuracy / teacher}
    return metrics


def _written(d: Driver, job: Job) -> Metrics:
    """Of a language model; its teachers have answered about the test split before."""
    tables = Tables(d.plan, job.guidance, d.interrupt.is_set)
    row = tables.quality_row(job, "student", load_best(job))
    return {name: value for name, value in row.metrics().items() if value is not None}
