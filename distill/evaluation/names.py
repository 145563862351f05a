"""The metrics that an evaluation will have: known before anything is computed."""

from __future__ import annotations

import re
from collections.abc import Iterator

from distill.evaluation.assess import EvaluationTask
from distill.evaluation.intervals import MEASURES
from distill.evaluation.relations import RATES
from distill.evaluation.settings import Evaluation, transformations_of

GPU_COSTS = ("latency_ms", "latency_p95_ms", "peak_memory_mb")
COSTS = ("params", "size_mb", "latency_ms", "latency_p95_ms", "gflops", "peak_memory_mb")
_OF_ATTACKS = re.compile(r"(teacher\.)?robustness\.(?!transformed\.).+|fidelity\.relative_drop")


def metric_names(task: EvaluationTask, settings: Evaluation, has_teacher: bool) -> set[str]:
    """As distill/evaluation/assess.py names them, and size, latency and memory as ``student.*``.

    A transformation that turns out to apply to no row is listed here all the same.
    """
    own = set(_of_one_model(task, settings))
    names = own | {f"student.{cost}" for cost in COSTS} | {"test.rows", "test.truncated_rows"}
    if settings.on_device == "cuda":
        names |= {f"student.gpu_{cost}" for cost in GPU_COSTS}
    if has_teacher:
        names |= {f"teacher.{name}" for name in own}
        names |= set(_of_two(task, settings))
    return names


def needs_attacks(metric: str) -> bool:
    """Whether it is measured by attacks alone."""
    return _OF_ATTACKS.fullmatch(metric) is not None


def _of_one_model(task: EvaluationTask, settings: Evaluation) -> Iterator[str]:
    for name in ("accuracy", "precision", "recall", "f1", "ece"):
        yield f"test.{name}"
    for domain in task.domain_names:
        yield f"test.accuracy.{domain}"
    for label in task.label_names:
        yield from (f"test.{name}.{label}" for name in ("precision", "recall", "f1"))
    if settings.intervals.num_draws:
        yield from (f"interval.{name}.{end}" for name in MEASURES for end in ("low", "high"))
    changes = _changes(task, settings)
    if changes:
        yield "robustness.transformed.drop"
    for change in ("", *(f"{name}." for name in changes)) if changes else ():
        yield from (f"robustness.transformed.{change}{name}" for name in ("accuracy", "flips"))
    if task.kind is not None and settings.attack.methods:
        yield from ("robustness.asr", "robustness.accuracy", "robustness.attacked")
        for method in settings.attack.methods:
            yield from (f"robustness.{method}.{name}" for name in ("asr", "accuracy", "queries"))


def _of_two(task: EvaluationTask, settings: Evaluation) -> Iterator[str]:
    yield from (f"fidelity.{name}" for name in (*RATES, "ece_gap"))
    yield from ("test.retention", "test.teacher_accuracy", "compression")
    changes = _changes(task, settings)
    if changes:
        yield "fidelity.transformed.relative_drop"
        for change in ("", *(f"{name}." for name in changes)):
            yield from (f"fidelity.transformed.{change}{name}" for name in RATES)
    if task.kind is not None and settings.attack.methods:
        yield "fidelity.relative_drop"


def _changes(task: EvaluationTask, settings: Evaluation) -> tuple[str, ...]:
    if task.kind is None and task.sd_D is None:
        return ()
    return transformations_of(task.kind, settings.transform)
