"""The rows of a run's table: what a task measures of every model on the test split."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

from distill.evaluation.efficiency import Efficiency
from distill.evaluation.routing import MeanWeights
from distill.evaluation.rows import Row
from distill.training.job import Job
from distill.training.trainable import Trainable

Say = Callable[[str], None]


class Comparison(ABC):
    """Of one run, or of one sweep, whose trials are not in it.

    A run calls, in this order, ``measure``, ``baselines``, ``link``, ``student``, ``related``,
    ``noted``, ``metrics`` and ``report``; a sweep ``teachers``, ``baselines`` and ``related``.
    """

    weights: MeanWeights | None = None
    """After ``measure``: of the teachers, where the aggregation trains them."""

    @abstractmethod
    def teachers(self) -> list[Row]:
        """Every teacher, and the ensembles that need no trained weights; [] without teachers, or
        where they cannot be compared with students."""

    @abstractmethod
    def measure(self, student: Job, module: Trainable, say: Say) -> list[Row]:
        """Teachers and student once, in the same pass: the rows that stand above the baselines.
        ``module``: the trained student's."""

    @abstractmethod
    def baselines(self, jobs: Sequence[Job]) -> list[Row]:
        """Every baseline of the experiment; ``jobs``: of those that are trained."""

    @abstractmethod
    def link(self, job: Job) -> Row:
        """A trained link of a chain."""

    @abstractmethod
    def student(self, say: Say) -> tuple[Row, Efficiency]:
        """The student of ``measure``, and its cost on one CPU thread."""

    @abstractmethod
    def related(self, rows: list[Row]) -> list[Row]:
        """The rows with what compares students and baselines with the teachers."""

    def noted(self, rows: list[Row]) -> list[Row]:
        """The rows with notes on those that a reader must not trust."""
        return rows

    @abstractmethod
    def metrics(self, row: Row, cost: Efficiency) -> dict[str, float]:
        """The student's, under the stable names; ``row``: of :meth:`related`."""

    def report(self, folder: Path) -> None:  # noqa: B027
        """Figures of this task alone."""

    @abstractmethod
    def tested(self, job: Job, module: Trainable) -> dict[str, float]:
        """``test.*`` of a trained trial; its teachers' outputs are in the cache."""
