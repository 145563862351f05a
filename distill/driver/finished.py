"""The result of a run that is finished: the same command prints it again and starts nothing.

<output>/finished.json   what was computed, evaluated and recorded, and the result of it
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.aggregation import Routed
from distill.config import Experiment
from distill.config.values import flatten, masked
from distill.driver.context import Command
from distill.evaluation.rows import Row
from distill.report.table import from_json, to_json
from distill.run_folder import RunFolder
from distill.tasks.plan import Plan
from distill.tracking import resolve_uri
from distill.tracking.store import sqlite_path

EVALUATED = ("baselines", "generation", "tracking")
"""Sections that the run folder's identity leaves out, and that decide what is in the result."""


@dataclass(frozen=True)
class Result:
    """What is printed at the end of a run."""

    rows: list[Row]
    metrics: dict[str, float]
    open_command: str


def keep(run: RunFolder, plan: Plan, command: Command, result: Result) -> None:
    """Atomic, and last of all: the student is exported, the report written, MLflow up to date."""
    content = {
        "of": _described(plan, command),
        "rows": json.loads(to_json(result.rows)),
        "metrics": result.metrics,
        "open_command": result.open_command,
    }
    partial = run.finished.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1, ensure_ascii=False), "utf-8")
    os.replace(partial, run.finished)


def finished(run: RunFolder, plan: Plan, command: Command) -> Result | None:
    """The result of the same run; None where something is to be done: another baseline, setting of
    the evaluation or MLflow store, other files of a teacher, no report or database of MLflow any
    more."""
    try:
        content = json.loads(run.finished.read_text("utf-8"))
        if content["of"] != _described(plan, command):
            return None
        rows = from_json(json.dumps(content["rows"]))
        result = Result(rows, content["metrics"], content["open_command"])
    except (OSError, ValueError, KeyError, TypeError):  # none, or not of this version
        return None
    written = [run.report / "frontier.csv"] if command == "sweep" else [run.report / "table.json"]
    if command == "train":
        written.append(run.student)
    if (database := sqlite_path(resolve_uri(plan.experiment.tracking))) is not None:
        written.append(database)
    return result if all(path.exists() for path in written) else None


def _described(plan: Plan, command: Command) -> dict[str, Any]:
    """Everything that the result depends on, flat."""
    experiment = plan.experiment
    sections = (*EVALUATED, "search") if command == "sweep" else EVALUATED
    settings = {name: getattr(experiment, name) for name in sections}
    flat = flatten({k: v for k, v in experiment.model_dump(mode="json").items() if k in settings})
    files = {f"files of {path}": _stamp(Path(path)) for path in sorted(set(_models(experiment)))}
    store = {"tracking.uri": masked(resolve_uri(experiment.tracking))}
    return json.loads(json.dumps({**plan.identity, **flat, **store, **files}))


def _models(experiment: Experiment) -> Iterator[str]:
    """Existing models that are evaluated, by their paths: hashing them would take as long as a
    short run."""
    for teacher in experiment.teachers:
        yield teacher.path
        if teacher.adapter is not None:
            yield teacher.adapter
    if experiment.experts is not None:
        yield experiment.experts.base
    if isinstance(experiment.aggregation, Routed) and experiment.aggregation.router is not None:
        yield experiment.aggregation.router


def _stamp(path: Path) -> str:
    """Names, sizes and times of a file, or of the files in a folder."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    kept = [(f.name, f.stat()) for f in files if f.is_file()]
    return json.dumps([(name, stat.st_size, stat.st_mtime_ns) for name, stat in kept])
