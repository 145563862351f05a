"""Model folders that do not exist: refused with their key, before anything is read or imported."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from distill.config import Experiment, Student, TfidfBaseline
from distill.errors import ModelError
from distill.hub import not_found

PICKLES = (".pkl", ".pickle", ".joblib")


def check_paths(experiment: Experiment) -> None:
    """Raises ModelError for the first path of a model or tokenizer at which there is nothing."""
    for key, path in _paths(experiment):
        if path is not None and not Path(path).exists():
            raise ModelError(f"{key}: {not_found(_what(key, path), path)}")


def _what(key: str, path: str) -> str:
    if path.endswith(PICKLES):
        return "file"
    kind = key.rpartition(".")[2]
    return f"{kind} folder" if kind in ("adapter", "tokenizer") else "model folder"


def _paths(experiment: Experiment) -> Iterator[tuple[str, str | None]]:
    for teacher in experiment.teachers:
        yield f"teachers.{teacher.name}.path", teacher.path
        yield f"teachers.{teacher.name}.adapter", teacher.adapter
    if experiment.experts is not None:
        yield "experts.base", experiment.experts.base
    yield "aggregation.router", getattr(experiment.aggregation, "router", None)
    yield from _paths_of("student", experiment.student)
    for baseline in experiment.baselines:
        if not isinstance(baseline, TfidfBaseline) and baseline.student is not None:
            yield from _paths_of(f"baselines.{baseline.name}.student", baseline.student)


def _paths_of(key: str, student: Student) -> Iterator[tuple[str, str | None]]:
    yield f"{key}.path", student.path
    if student.init_from is not None:
        yield f"{key}.init_from.path", student.init_from.path
    yield f"{key}.tokenizer", student.tokenizer
