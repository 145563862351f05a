"""What a run is about: one package for each task."""

from importlib import import_module
from types import SimpleNamespace
from typing import Any


def task_of(experiment: Any) -> Any:
    """For now the functions of the task's modules."""
    found: dict[str, Any] = {}
    for name in ("check", "sizes", "preview"):
        found |= vars(import_module(f"distill.tasks.{experiment.task}.{name}"))
    return SimpleNamespace(**found)
