"""Lines of the plan: how the teachers are combined, the loss, and the shared memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distill.aggregation.trained import TrainedWeights
from distill.config import Experiment
from distill.data.rows import Rows
from distill.driver.memory.entries import entries
from distill.records import UNLABELLED, Line
from distill.wording import counted


def component_lines(experiment: Experiment, num_teachers: int, rows: Rows) -> list[Line]:
    lines = []
    if num_teachers > 1:
        lines.append(_aggregation(experiment, rows))
    elif num_teachers and isinstance(experiment.aggregation, TrainedWeights):
        alone = "of one teacher: its weight is always 1"
        lines.append(Line("aggregation", experiment.aggregation.type, alone))
    if num_teachers:
        kd = experiment.kd
        settings = f"alpha {kd.alpha:g}"
        if kd.schedule.type == "constant":
            settings += f", temperature {kd.temperature:g}"
        if kd.normalise == "sequences":
            settings += ", normalised by sequence"
        lines.append(Line("objective", experiment.objective.type, settings))
    if experiment.memory.path is not None:
        lines.append(_memory(Path(experiment.memory.path).absolute(), experiment.memory.limit_mb))
    return lines


def _aggregation(experiment: Experiment, rows: Rows) -> Line:
    used: Any = experiment.aggregation
    if not isinstance(used, TrainedWeights):
        return Line("aggregation", used.type)
    training = range(rows.rows("train").start, rows.rows("transfer").stop)
    other = used.without_labels()
    is_labelled = rows.is_self_labelled or (rows.labels_of(training) != UNLABELLED).any()
    if other is not used and not is_labelled:
        return Line("aggregation", other.type, f"{used.type} needs labels: no training row has one")
    unit = rows.pooled_unit if used.pools else rows.unit
    return Line("aggregation", used.type, f"weights for each {unit}, trained by the labels")


def _memory(root: Path, limit_mb: float) -> Line:
    kept = [
        [entry for entry in entries(root / kind) if not entry.is_hidden]
        for kind in ("fits", "answers")
    ]
    size_mb = sum(entry.num_bytes for kind in kept for entry in kind) / 1e6
    fits, outputs = (len(kind) for kind in kept)
    held = f"{counted(fits, 'fit')}, outputs of {counted(outputs, 'teacher')}, {size_mb:,.1f} MB"
    return Line("shared memory", str(root), f"{held}; limit {limit_mb:,.0f} MB")
