"""Trials of a sweep, its goals, and the frontier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from distill.config.search import Goal

Value = float | int | str | bool
Status = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True)
class Trial:
    """One student of a sweep, read from its folder or its MLflow run."""

    name: str
    """``trial-007``: its run in MLflow, its folder below ``<output>/trials``."""
    status: Status
    """``stopped``: ended early by the scheduler, at its last evaluation."""
    values: dict[str, Value]
    """Searched keys of the experiment and this trial's values."""
    metrics: dict[str, float]
    """Stable names: ``eval.accuracy``, ``student.size_mb``, …; ``test.*`` on the frontier alone."""
    reason: str = ""
    """Why it failed."""
    student: str = ""
    """Folder of the exported student; empty if it failed."""
    history: list[dict[str, Any]] = field(default_factory=list, repr=False)
    """Lines of metrics.jsonl: ``{"step": …, "metrics": {…}}``."""


def frontier(trials: Sequence[Trial], goals: Sequence[Goal]) -> list[Trial]:
    """Trials such that no other is at least as good in every goal and better in one.

    Failed and stopped trials, and those that lack a goal's metric, are left out. Of equals the
    first is kept. Sorted by the last goal's metric, best first (so: smallest first).
    """
    costs = [
        (tuple(goal.cost(trial.metrics) for goal in goals), trial)
        for trial in trials
        if trial.status == "finished"
    ]
    known = [(cost, trial) for cost, trial in costs if float("inf") not in cost]
    kept = [
        (cost, trial)
        for index, (cost, trial) in enumerate(known)
        if not any(
            all(o <= c for o, c in zip(other, cost, strict=True)) and (other != cost or j < index)
            for j, (other, _) in enumerate(known)
            if j != index
        )
    ]
    return [trial for _, trial in sorted(kept, key=lambda pair: pair[0][::-1])]
