"""Estimated seconds of a run's jobs."""

from __future__ import annotations

from functools import cache

from distill.cluster.estimates import Training
from distill.driver.checks.operations import RunOperations
from distill.driver.checks.rate import measured_rate
from distill.tasks.plan import Plan
from distill.training.job import Job


class JobTimes:
    """Estimated seconds of a run's jobs, by which its tasks are ordered."""

    def __init__(self, plan: Plan, rate: float | None = None) -> None:
        """``rate``: as for :func:`estimate`, of a CPU thread."""
        self._plan = plan
        self._tokens = plan.task.tokens_of_a_row(plan)
        student = plan.task.student_size(plan, plan.experiment.student)
        num_rows = round(plan.experiment.trainer.batch_size * self._tokens)
        self._rate = rate or measured_rate(num_rows, student.hidden, "cpu")
        self._base = cache(plan.task.folder_size)

    @property
    def student(self) -> float:
        """Of the student, its teachers and the links of a chain."""
        work = RunOperations(self._plan, self._tokens)
        trained = sum(t.seconds(self._rate) for t in (work.student, *work.links.values()))
        return trained + (sum(work.teachers) + sum(work.link_outputs.values())) / self._rate

    def __call__(self, job: Job) -> float:
        trainer = job.trainer
        active, per_parameter = self._model(job)
        training = Training(
            active,
            self._tokens,
            trainer.batch_size,
            job.total_steps,
            len(job.validation_rows),
            trainer.eval_every or job.steps_per_epoch,
            per_parameter,
        )
        return training.seconds(self._rate * max(1, int(trainer.num_cpus_per_worker)))

    def forward(self, job: Job, num_rows: int) -> float:
        """Of the job's model on so many rows."""
        return 2 * self._model(job)[0] * self._tokens * num_rows / self._rate

    def _model(self, job: Job) -> tuple[int, float]:
        """Parameters that multiply, and operations for each."""
        return self._plan.task.spec_size(self._plan, job.model, self._base)
