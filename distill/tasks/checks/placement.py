"""Existing teachers, as far as it matters for which of them share a process."""

from __future__ import annotations

from typing import NamedTuple

from distill.config import Experiment, Serving


class PlacedTeacher(NamedTuple):
    """As distill/teachers/serving.py looks at it."""

    name: str
    folder: str
    adapter: str | None
    serving: Serving


def placed(experiment: Experiment) -> list[PlacedTeacher]:
    """Those that ``teachers`` names."""
    return [PlacedTeacher(t.name, t.path, t.adapter, t) for t in experiment.teachers]
