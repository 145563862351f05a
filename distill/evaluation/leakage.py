"""Evidence that an existing teacher was trained on test rows [ours].

The training data of such a teacher is not known. One that has seen the test rows raises every
figure it is compared with: retention and fidelity are then those of a model that knows the answers.
Models that the run trains itself (experts, baselines, the student) read the train split alone and
cannot have seen them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

MIN_ACCURACY = 0.99
"""A teacher below it has not memorised the rows."""
MIN_GAP = 0.10
"""Accuracy by which a teacher must exceed all other models, or fall further than the student."""
MIN_ROWS = 200
"""With fewer, a difference of ``MIN_GAP`` is within three standard errors."""
ADVICE = "may have been trained on these rows: test rows must not be in its training data"


def suspicious(ready: Mapping[str, float], others: Mapping[str, float]) -> list[str]:
    """Existing teachers that are nearly perfect where nothing else comes close; by accuracy.

    A teacher is named if its accuracy is at least ``MIN_ACCURACY`` and every model below that
    (other teachers, baselines and the student, not mixtures that contain it) is lower by at least
    ``MIN_GAP``. Both must hold, which keeps false alarms rare: where the task is easy, at least one
    of the others comes within 10 points (a linear model has 92 % of MNIST); where it is hard, no
    teacher has 99 %. Two teachers that were trained on the rows do not hide each other. None of
    the models trained by the run may be perfect, or the task is easy. What it does not find: a
    teacher that memorised a part of the rows.
    """
    top = {name: value for name, value in ready.items() if value >= MIN_ACCURACY}
    rest = [value for name, value in ready.items() if name not in top] + list(others.values())
    if not top or not rest or max(rest) > min(top.values()) - MIN_GAP:
        return []
    return list(top)


class Accuracies(NamedTuple):
    """On the same rows."""

    student: float
    teacher: float


def fell(before: Accuracies, now: Accuracies, num_rows: int) -> bool:
    """Whether the teacher lost more than the student from the run's test split to other rows.

    (T_before − T_now) − (S_before − S_now) ≥ ``MIN_GAP``, on at least ``MIN_ROWS`` rows: harder
    rows lower both, rows that the teacher knew and now does not lower the teacher alone.
    """
    teacher, student = before.teacher - now.teacher, before.student - now.student
    return num_rows >= MIN_ROWS and teacher - student >= MIN_GAP
