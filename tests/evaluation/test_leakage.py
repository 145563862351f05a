"""When a ready teacher counts as trained on test rows, and what the largest class is."""

import numpy as np
import pytest

from distill.evaluation.leakage import MIN_ROWS, Accuracies, fell, suspicious
from distill.evaluation.majority import majority


@pytest.mark.parametrize(
    ("ready", "others", "expected"),
    [
        ({"tfidf": 0.998}, {"student": 0.78, "labels only": 0.74}, ["tfidf"]),
        ({"tfidf": 0.998, "bert": 0.81}, {"student": 0.78}, ["tfidf"]),
        # Two that know the rows do not hide each other.
        ({"a": 0.995, "b": 1.0}, {"student": 0.8}, ["a", "b"]),
        # Both must be 10 points above the others.
        ({"a": 0.99, "b": 1.0}, {"student": 0.895}, []),
        # The task is easy: something else comes close.
        ({"tfidf": 0.998, "bert": 0.95}, {"student": 0.78}, []),
        ({"cnn": 0.997}, {"student": 0.92}, []),
        # Nobody knows the rows.
        ({"bert": 0.98}, {"student": 0.6}, []),
        ({}, {"student": 1.0}, []),
        ({"tfidf": 1.0}, {}, []),
    ],
)
def test_a_teacher_alone_at_the_top_is_suspicious(
    ready: dict[str, float], others: dict[str, float], expected: list[str]
) -> None:
    assert suspicious(ready, others) == expected


def test_a_teacher_that_falls_further_than_the_student() -> None:
    before = Accuracies(student=0.78, teacher=0.998)
    assert fell(before, Accuracies(0.77, 0.81), MIN_ROWS)
    assert not fell(before, Accuracies(0.77, 0.81), MIN_ROWS - 1)  # within the sampling error
    assert not fell(before, Accuracies(0.60, 0.81), MIN_ROWS)  # harder rows lower both
    assert not fell(before, Accuracies(0.80, 0.99), MIN_ROWS)


def test_the_note_on_a_model_without_skill() -> None:
    largest = majority(np.array([1, 0, 1, 1, 0]), ("no", "yes"))
    assert largest == ("yes", 0.6)
    assert largest.note(0.582) == "below the majority class (60.0 %)"
    assert largest.note(0.6) == "no better than the majority class (60.0 %)"
    assert largest.note(0.61) == ""
