"""Existing teachers, as far as it matters for which of them share a process."""

from __future__ import annotations

from distill.config import Experiment
from distill.teachers.served import ServedTeacher


def placed(experiment: Experiment) -> list[ServedTeacher]:
    """Those that ``teachers`` names."""
    return [ServedTeacher(t.name, t.path, t, adapter=t.adapter) for t in experiment.teachers]
