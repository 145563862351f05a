"""Notes on the rows of a run's comparison."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from distill.evaluation.leakage import ADVICE
from distill.evaluation.rows import Row
from distill.report.table import to_markdown
from distill.tasks.classification.comparison import noted

TEST: Any = SimpleNamespace(labels_R=np.array([0] * 58 + [1] * 42), num_classes=2)


def notes(rows: list[Row], ready: set[str]) -> list[str]:
    return [row.note for row in noted(rows, TEST, ready)]


def test_a_ready_teacher_that_knows_the_test_rows_has_a_note() -> None:
    rows = [
        Row("tfidf", "expert", accuracy=0.998),
        Row("bert", "expert", accuracy=0.81),
        Row("uniform mean", "mix", accuracy=0.97),
        Row("tfidf", "baseline", accuracy=0.76),  # trained by the run, under the same name
        Row("student", "student", accuracy=0.78),
    ]
    assert notes(rows, {"tfidf", "bert"}) == [ADVICE, "", "", "", ""]
    assert notes(rows, set()) == [""] * 5  # an expert of the run has not seen its test split


def test_a_student_below_the_largest_class_has_a_note() -> None:
    rows = [
        Row("expert", "expert", accuracy=0.3),
        Row("alone", "baseline", accuracy=0.58),
        Row("link 1", "link", accuracy=0.5, note="dropped from the chain"),
        Row("student", "student", accuracy=0.5),
        Row("other", "student", accuracy=0.6, note="kept"),
    ]
    assert notes(rows, set()) == [
        "",
        "no better than the majority class (58.0 %)",
        "dropped from the chain; below the majority class (58.0 %)",
        "below the majority class (58.0 %)",
        "kept",
    ]
    assert "- student: below the majority class (58.0 %)" in to_markdown(noted(rows, TEST, set()))
