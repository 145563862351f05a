"""What ``distill evaluate`` is given, and what it finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from distill.config import Data
from distill.evaluation.assess import Assessment, EvaluationTask
from distill.evaluation.efficiency import Efficiency
from distill.evaluation.gate import parse_gate
from distill.evaluation.majority import Majority, majority
from distill.evaluation.settings import Evaluation
from distill.evaluation.source import EvaluationSource


@dataclass(frozen=True)
class EvaluationRequest:
    """The arguments of ``distill evaluate``."""

    student: Path
    """An exported folder, or a run."""
    source: EvaluationSource
    teachers: tuple[str, ...] = ()
    """(): of a run its own, else none."""
    teacher_labels: tuple[Mapping[str, str], ...] = ()
    """For each teacher, the student's label for labels of its own; (): matched by name."""
    allow_pickle: bool = False
    """Of ``teachers``; those of a run have the permission of its configuration."""
    max_length: int | None = None
    fail_if: tuple[str, ...] = ()
    settings: Evaluation = field(default_factory=Evaluation)
    attacks: bool = False
    """Attack as well, by all methods unless the settings name them; a gate on a metric of attacks
    does so too."""


@dataclass(frozen=True, eq=False)
class Evaluated:
    """All results of an evaluation."""

    request: EvaluationRequest
    """With the attacks of ``--attacks`` and of gates in its settings."""
    task: EvaluationTask
    assessment: Assessment
    metrics: dict[str, float | None]
    costs: dict[str, Efficiency]
    """By role, where the model has weights."""
    failures: list[str]
    """Of the gates."""
    data: Data
    """The columns and the split that were read."""
    warnings: tuple[str, ...] = ()
    """What makes the figures doubtful: see leakage.py, majority.py and source.py."""

    @property
    def passed(self) -> list[str]:
        """Of the gates that do not fail: a line each."""
        gates = [parse_gate(text) for text in self.request.fail_if]
        return [line for gate in gates if (line := gate.passed(self.metrics)) is not None]

    @property
    def majority(self) -> Majority:
        return majority(self.task.labels_R, self.task.label_names)
