"""Evaluations of classifiers whose outputs are known, without a model or a file."""

from __future__ import annotations

from pathlib import Path

from distill.config import Data
from distill.evaluation.assess import EvaluationTask, assess
from distill.evaluation.efficiency import Efficiency
from distill.evaluation.evaluated import Evaluated, EvaluationRequest
from distill.evaluation.samples import Sample
from distill.evaluation.settings import parse_settings
from distill.evaluation.source import EvaluationSource
from tests.evaluation.toy_classifiers import Silent, Words

LABELS = ("negative", "positive")
DOMAINS = ("films", "a domain <b>with</b> markup")
COST = Efficiency(2_030_000, 8.11, 0.005, 0.45, 0.61, 8.17, "cpu, 1 threads")
STUDENT = Words({"good": 2.0, "bad": -1.0, "fine": -1.0})
TEACHER = Words({"good": 3.0, "bad": -3.0, "fine": 1.0, "awful": -2.0})


def evaluated(
    *overrides: str, has_teacher: bool = True, warnings: tuple[str, ...] = ()
) -> Evaluated:
    """40 rows, 5 of whose positives the student gets wrong."""
    words = ("good", "bad", "fine", "awful")
    samples = [
        Sample(i, (i + 1) % 2, DOMAINS[i % 3 == 0], f"{words[i % 4]} plot <script> number {i}")
        for i in range(40)
    ]
    task = EvaluationTask(samples, LABELS, DOMAINS, "text")
    settings = parse_settings(["intervals.num_draws=20", "num_worst=3", *overrides])
    found = assess(STUDENT, TEACHER if has_teacher else None, task, settings, Silent())
    metrics = found.metrics | {"student.size_mb": 8.11, "test.rows": 40.0}
    if has_teacher:
        metrics |= {"test.retention": 0.75, "compression": 12.0}
    data = Data.model_validate({"path": "rows.parquet", "columns": {"domain": "domain"}})
    teachers = ("models/big",) if has_teacher else ()
    request = EvaluationRequest(
        Path("runs/mine"), EvaluationSource("rows.parquet"), teachers, settings=settings
    )
    costs = {"student": COST} | ({"teacher": COST} if has_teacher else {})
    return Evaluated(request, task, found, metrics, costs, [], data, warnings)
