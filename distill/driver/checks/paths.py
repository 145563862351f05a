"""Whether what a configuration names is there: refused before torch is imported.

Only local paths are looked at, and only that they exist: what is in them is for the other checks.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path

from distill.aggregation import Routed
from distill.config import Experiment, LabelsOnly
from distill.errors import ConfigError, DataError, InputError, ModelError
from distill.models.hub import not_found

PICKLES = (".pkl", ".pickle", ".joblib")


def check_paths(experiment: Experiment) -> None:
    """Raise DataError, ModelError or ConfigError, with a line for each path that does not exist."""
    faults = [*_faults(experiment)]
    if faults:
        kind = type(faults[0])
        raise kind("\n".join(str(fault) for fault in faults))


def _faults(experiment: Experiment) -> Iterator[InputError]:
    data = experiment.data
    for path in (data.path,) if isinstance(data.path, str) else data.path:
        is_local = ":/" not in path and not set("*?[") & set(path)
        if is_local and not _exists(path):
            yield DataError(f"data.path: {_missing('file or folder', path, is_data=True)}")
    if data.chat_template is not None and not _exists(data.chat_template):
        yield ConfigError(f"data.chat_template: {_missing('file', data.chat_template)}")
    for key, path in _models(experiment):
        if not Path(path).exists():
            yield ModelError(f"{key}: {_missing(_what(key, path), path)}")


def _models(experiment: Experiment) -> Iterator[tuple[str, str]]:
    """Every folder or file of a model, by key."""
    named: dict[str, str | None] = {}
    for teacher in experiment.teachers:
        named[f"teachers.{teacher.name}.path"] = teacher.path
        named[f"teachers.{teacher.name}.adapter"] = teacher.adapter
    if experiment.experts is not None:
        named["experts.base"] = experiment.experts.base
    if isinstance(experiment.aggregation, Routed):
        named["aggregation.router"] = experiment.aggregation.router
    students = {"student": experiment.student} | {
        f"baselines.{b.name}.student": b.student
        for b in experiment.baselines
        if isinstance(b, LabelsOnly) and b.student is not None
    }
    for key, student in students.items():
        named[f"{key}.path"] = student.path
        named[f"{key}.tokenizer"] = student.tokenizer
        if student.init_from is not None:
            named[f"{key}.init_from.path"] = student.init_from.path
    for key, path in named.items():
        if path is not None:
            yield key, path


def _what(key: str, path: str) -> str:
    if path.endswith(PICKLES):
        return "file"
    kind = key.rpartition(".")[2]
    return f"{kind} folder" if kind in ("adapter", "tokenizer") else "model folder"


def _exists(path: str) -> bool:
    return Path(path).expanduser().exists()


def _missing(what: str, path: str, is_data: bool = False) -> str:
    """With the nearest name in the folder where it should be."""
    given = Path(path).expanduser()
    if given.parent.is_dir():
        names = sorted(each.name for each in given.parent.iterdir())
        if close := difflib.get_close_matches(given.name, names, n=1):
            return f"there is no {what} {path}: did you mean {given.parent / close[0]}?"
    return not_found(what, path, is_data)
