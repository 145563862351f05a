"""The models of a chain, as trained."""

from __future__ import annotations

from dataclasses import dataclass, replace

from distill.tasks.base import IsStopped
from distill.tasks.plan import Plan
from distill.teachers.setup import TeacherSetup
from distill.training.fit import load_best
from distill.training.job import Job

DROPPED = "dropped from the chain"


@dataclass(frozen=True)
class Decision:
    """Whether a link is kept, and why."""

    name: str
    value: float
    """Of the metric that selects weights, on validation."""
    change: float | None
    """Relative, from the link before (link 1: the aggregated teachers); above 0 is better. None:
    the teachers' value is not known (their tokens are not the student's)."""
    is_kept: bool
    reason: str


def value_of_teachers(plan: Plan, job: Job, is_stopped: IsStopped) -> float | None:
    """The aggregated teachers of a trained job, which are served, on validation, by the metric that
    selects its weights; None where they cannot be compared with it."""
    found = plan.task.teachers_on_validation(plan, job, load_best(job), is_stopped)
    return None if found is None else found[job.selection.metric]


@dataclass(frozen=True)
class Link:
    """An intermediate link that was trained."""

    job: Job
    decision: Decision

    @property
    def note(self) -> str:
        """For the comparison; empty for a link that was kept."""
        return "" if self.decision.is_kept else f"{DROPPED}: {self.decision.reason}"


@dataclass(frozen=True)
class Chained:
    """The trained links and the trained student."""

    student: Job
    links: tuple[Link, ...] = ()

    @property
    def num_kept(self) -> int:
        """Links of the chain, the student counted."""
        return 1 + sum(link.decision.is_kept for link in self.links)

    @property
    def first(self) -> Job:
        """The job that was distilled from the teachers: link 1, or the student."""
        return self.links[0].job if self.num_kept > 1 else self.student

    def with_teachers(self, teacher_setup: TeacherSetup | None) -> Chained:
        """The same, with these teachers of :attr:`first`, which are served."""
        distilled = replace(self.first, teacher_setup=teacher_setup)
        if self.num_kept == 1:
            return replace(self, student=distilled)
        return replace(self, links=(replace(self.links[0], job=distilled), *self.links[1:]))
