"""Whether what a configuration names is there: refused before torch is imported.

Only local paths are looked at, and only that they exist: what is in them is for the other checks.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path

from distill.aggregation import Routed
from distill.config import Experiment, LabelsOnly
from distill.errors import DataError, InputError, ModelError


def check_paths(experiment: Experiment) -> None:
    """Raise DataError or ModelError, with a line for each path that does not exist."""
    faults = [*_faults(experiment)]
    if faults:
        kind = type(faults[0])
        raise kind("\n".join(str(fault) for fault in faults))


def _faults(experiment: Experiment) -> Iterator[InputError]:
    data = experiment.data
    for path in (data.path,) if isinstance(data.path, str) else data.path:
        if "://" not in path and not set("*?[") & set(path) and not _exists(path):
            yield DataError(f"data.path: there is no file or folder at {path!r}{_way_out(path)}")
    if data.chat_template is not None and not _exists(data.chat_template):
        path = data.chat_template
        yield DataError(f"data.chat_template: there is no file {path!r}{_way_out(path)}")
    for key, path in _models(experiment):
        if not _exists(path):
            yield ModelError(f"{key}: there is no model folder {path}{_way_out(path)}{_hub(path)}")


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


def _exists(path: str) -> bool:
    return Path(path).expanduser().exists()


def _way_out(path: str) -> str:
    """The nearest name in the folder where it should be, or the first folder that is missing."""
    wanted = Path(path).expanduser()
    if not wanted.parent.is_dir():
        missing = next(p for p in [*reversed(wanted.parents), wanted] if not p.is_dir())
        return f" (no folder {missing} in {missing.parent.absolute()}): check the path"
    names = sorted(each.name for each in wanted.parent.iterdir())
    close = difflib.get_close_matches(wanted.name, names, n=1)
    return f": did you mean {wanted.parent / close[0]}?" if close else ": check the path"


def _hub(path: str) -> str:
    """What to do with ``organisation/model``, which could be a name on the Hugging Face Hub."""
    parts = path.split("/")
    if len(parts) != 2 or not all(parts) or path.startswith((".", "~")):
        return ""
    return (
        f". distill reads folders and never queries the Hub: download a model first, hf download "
        f"{path} --local-dir models/{parts[1]}, and give models/{parts[1]}"
    )
