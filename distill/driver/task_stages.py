"""Experts, router and baselines as tasks on Ray: what starts when, and what if one fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from types import TracebackType

from distill.cluster.estimates import Room
from distill.cluster.ray_tasks import RayTask, RayTasks, TaskLauncher, whole_room
from distill.driver.checks.job_times import JobTimes
from distill.driver.checks.planned import room_left
from distill.driver.context import Driver
from distill.driver.fit_progress import FitWatch
from distill.driver.stages import Stage
from distill.errors import DistillError, Interrupted, TeacherAway
from distill.tasks.plan import Plan
from distill.training.fit import is_saved
from distill.training.job import Job
from distill.wording import counted

POLL_S = 0.5
STOP_PATIENCE_S = 60.0
"""How long a worker group may take to start after Ctrl-C, and tasks to write checkpoints after an
error."""
FIRST_S = 1e9
"""More than any task takes: a task that so much waits for starts before the others."""
MEASURING = "measuring the experts' losses"
"""Label of the tasks that measure the experts' losses."""


class TaskStages:
    """Stages that are tasks on Ray, their progress, and what happens if one fails.

    ``run`` waits for them. Baselines can go on in the background while the driver serves teachers
    and trains the student: it then calls ``poll_during``. A context: an error in it ends them.
    """

    def __init__(self, d: Driver, launcher: TaskLauncher) -> None:
        self._d, self._launcher = d, launcher
        self._tasks: RayTasks | None = None
        self._watches: dict[str, FitWatch] = {}
        self._num_losses = [0, 0]
        """Measured, and to be measured."""
        self._error: Exception | None = None

    def __enter__(self) -> TaskStages:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, Exception):  # not a second Ctrl-C, which ends everything at once
            self.end()

    @cached_property
    def _room(self) -> Room:
        """For tasks while the student is not trained."""
        return self.whole_room

    @property
    def whole_room(self) -> Room:
        """While neither teachers nor the student run."""
        return whole_room(self._d.experiment.cluster, self._launcher)

    @property
    def tasks(self) -> RayTasks:
        if self._tasks is None:  # of a cluster that is up
            self._tasks = RayTasks(self._room, self._launcher)
        return self._tasks

    def run(self, stages: Sequence[Stage], goes_on: bool = False) -> None:
        """Those of the stages that are tasks and are not done, until they have ended.

        ``goes_on``: of the baselines, those go on in the background that fit next to teachers and
        student; what fits is known to Ray alone.
        """
        stages = [stage for stage in stages if stage.is_task]
        fits = [stage for stage in stages if stage.kind != "losses"]
        for stage in fits:
            if stage.prepare is None:  # a job that is not complete is looked up when it starts
                self._d.memory.restore(_job(stage))
        tasks = self.planned(stages)
        left = room_left(self._d.plan, self.whole_room)
        if goes_on:
            may_go_on = [t.kind == "baseline" and left.holds([t.scheduled]) for t in tasks]
            pairs = zip(tasks, may_go_on, strict=True)
            tasks = [replace(task, is_background=is_one) for task, is_one in pairs]
            self.tasks.set_room(self.whole_room, left)
        self.add(tasks, [_job(stage) for stage in fits])
        self.wait(task.name for task in tasks if not task.is_background)
        if goes_on:
            self.go_on(left)

    def planned(self, stages: Sequence[Stage]) -> list[RayTask]:
        """The tasks of the stages that are not done, with estimates."""
        tasks = [stage.task for stage in stages if not stage.is_done]
        completed = [
            task if task.prepare is None else replace(task, prepare=self._restoring(task.prepare))
            for task in tasks
        ]
        return _estimated(self._d.plan, completed)

    def _restoring(self, prepare: Callable[[Job], Job]) -> Callable[[Job], Job]:
        """``prepare``, and the finished fit of an equal job where the shared memory has one."""

        def complete(job: Job) -> Job:
            job = prepare(job)
            self._d.memory.restore(job)
            return job

        return complete

    def run_fits(self, jobs: Sequence[Job]) -> None:
        """Train these to their end, before what else is left to do."""
        for job in jobs:
            self._d.memory.restore(job)
        tasks = _estimated(self._d.plan, [RayTask(job) for job in jobs if not is_saved(job)])
        tasks = [replace(task, rest=FIRST_S) for task in tasks]
        self.add(tasks, jobs)
        self.wait(task.name for task in tasks)

    def add(self, tasks: Sequence[RayTask], jobs: Sequence[Job]) -> None:
        """``jobs``: those whose progress is shown: of the tasks, and others that are done."""
        watch = FitWatch(self._d, list(jobs))
        self._watches |= {job.name: watch for job in jobs}
        self._num_losses[1] += sum(task.verb == "losses" for task in tasks)
        self.tasks.add(tasks)

    def poll(self, timeout_s: float = 0.0) -> None:
        """Start what there is room for, and show the progress. The error of a task is kept for
        ``wait``: what else runs is not lost."""
        if self._d.interrupt.is_set():
            self.tasks.stop()
        try:
            for task in self.tasks.poll(timeout_s):
                if task.verb == "losses":
                    self._num_losses[0] += 1
                    num_done, num_all = self._num_losses
                    self._d.progress.update(MEASURING, num_done, num_all)
                else:
                    self._watches[task.job.name].end(task.job.name)
                    self._d.memory.keep(task.job)
        except Exception as error:
            if self._error is not None:  # a second one, as the first ends the run
                return
            self._error = error
        for watch in {id(watch): watch for watch in self._watches.values()}.values():
            watch.poll()

    def wait(self, names: Iterable[str]) -> None:
        """Until these tasks have ended. Raises as ``check`` does; Interrupted after a signal."""
        names = set(names)
        while self._error is None and names & set(self.tasks.pending):
            self.poll(POLL_S)
        self.check()
        self._d.interrupt.check()
        if names - self.tasks.ended:
            raise Interrupted("stopped before all tasks had ended")

    def wait_for_all(self) -> None:
        """Nothing is trained any more but these tasks."""
        self.tasks.set_room(self._room, self._room)
        self.wait(self.tasks.pending)

    def check(self) -> None:
        """Raise the first error, after the others have written checkpoints."""
        if self._error is not None:
            if self.tasks.pending:
                num = counted(len(self.tasks.pending), "task")
                say = self._d.progress.say
                what = (
                    "a teacher stays away"
                    if isinstance(self._error, TeacherAway)
                    else "a task failed"
                )
                say(f"{what}: the run ends when the checkpoints of {num} are written")
            self.end()
            raise self._error

    def go_on(self, left: Room) -> None:
        """From now on teachers are served; ``left``: what they and the student leave to tasks. At
        any other time than its training the student's share is left too."""
        trainer = self._d.experiment.trainer
        ranks = trainer.num_workers
        self._room = replace(
            left,
            num_cpus=left.num_cpus + ranks * trainer.num_cpus_per_worker,
            num_gpus=left.num_gpus + ranks * trainer.num_gpus_per_worker,
            max_stages=left.max_stages + 1,
        )
        self.tasks.set_room(self._room, left)

    def poll_during(self, name: str) -> None:
        """As ``poll``, while ``name`` is trained. An error ends the run after that."""
        had_none = self._error is None
        self.poll()
        if had_none and self._error is not None:
            say = self._d.progress.say
            say(
                str(self._error)
                if isinstance(self._error, TeacherAway)
                else f"error: {self._error}"
            )
            say(f"the training of {name} goes on; then the run ends with this error")

    def end(self) -> None:
        """The run ends early: those that run write checkpoints. After an error the time for that
        is limited; after a signal a second one ends it."""
        if self._tasks is None:
            return
        self._tasks.stop()
        if self._tasks.pending:
            self._d.run.request_stop()
        is_limited = not self._d.interrupt.is_set()
        give_up = time.monotonic() + (STOP_PATIENCE_S if is_limited else float("inf"))
        while self._tasks.pending and time.monotonic() < give_up:
            try:
                list(self._tasks.poll(POLL_S))
            except DistillError:  # the first error is the run's
                continue
            except Exception:  # Ray itself has ended
                return


def _job(stage: Stage) -> Job:
    assert stage.job is not None
    return stage.job


def _estimated(plan: Plan, tasks: list[RayTask]) -> list[RayTask]:
    """The tasks with the estimates that decide their order. The student waits for all but the
    baselines."""
    if len(tasks) < 2:
        return tasks
    times = JobTimes(plan)
    student = times.student
    labelled = len(plan.rows.rows("train")) + len(plan.rows.rows("validation"))

    def seconds(task: RayTask) -> float:
        return times.forward(task.job, labelled) if task.verb == "losses" else times(task.job)

    return [
        replace(task, seconds=seconds(task), rest=0.0 if task.kind == "baseline" else student)
        for task in tasks
    ]
