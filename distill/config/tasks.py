"""Which tasks there are, by name: nothing of a task is imported until it is needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

TASKS: dict[str, str] = {
    "classification": "distill.tasks.classification:Classification",
    "language_model": "distill.tasks.language_model:LanguageModel",
}
"""Module and class of each value of the key ``task``."""


def register(name: str, path: str) -> None:
    """Make ``task: name`` a value of the key, in this process. ``path``: ``module:Class``, a
    subclass of ``distill.tasks.base.Task``."""
    TASKS[name] = path


def task_named(name: str) -> Any:
    """The task, a ``distill.tasks.base.Task``."""
    module, _, cls = TASKS[name].partition(":")
    return getattr(import_module(module), cls)()
