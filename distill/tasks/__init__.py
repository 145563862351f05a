"""The tasks: what rows, students, metrics and comparisons are. One package for each; base.py has
the contract, config/tasks.py the list."""

from __future__ import annotations

from distill.config import Experiment
from distill.config.tasks import task_named
from distill.tasks.base import Task


def task_of(experiment: Experiment) -> Task:
    return task_named(experiment.task)
