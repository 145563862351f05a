"""The students that a sweep keeps: their latency without company, and the test split once."""

from __future__ import annotations

from distill.driver.context import Driver
from distill.driver.sweep.trial import Sweep
from distill.search.ledger import LedgerEntry
from distill.training.fit import load_best


def timed_alone(d: Driver, sweep: Sweep, entry: LedgerEntry) -> LedgerEntry:
    """The entry with the latency of its student while no trial shares the cores."""
    d.interrupt.check()
    task, length = d.plan.task, d.experiment.data.max_length
    cost = task.cost(task.load(entry.student), length)
    metrics = entry.metrics | {"student.latency_ms": cost.latency_ms}
    if cost.tokens_per_s is not None:
        metrics["student.tokens_per_s"] = cost.tokens_per_s
    return sweep.ledger.write(entry, entry.status, metrics)


def tested(d: Driver, sweep: Sweep, entry: LedgerEntry) -> LedgerEntry:
    """The entry with ``test.*``: measured once, for a student that is kept."""
    if any(name.startswith("test.") for name in entry.metrics):
        return entry
    job = sweep.job(entry)
    compared = d.plan.task.comparison(d.plan, job.data, job.teacher_setup, d.interrupt.is_set)
    found = compared.tested(job, load_best(job))
    return sweep.ledger.write(entry, entry.status, entry.metrics | found)
