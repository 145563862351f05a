"""Experts, router and baselines as tasks of a run, and the progress of every fit."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from distill.aggregation import Routed
from distill.cluster.estimates import Room
from distill.cluster.ray_tasks import Launcher, Task, Tasks, whole_room
from distill.config.temperature import ChoiceReader
from distill.driver.checks.estimate import JobTimes, room_left
from distill.driver.memory.store import Memory, NoMemory
from distill.errors import DistillError, Interrupted, TeacherAway
from distill.experts.jobs import router_job
from distill.experts.losses import losses_file, measure_losses, router_targets
from distill.experts.partition import Parts
from distill.report.progress import format_metrics
from distill.teachers.health import knows_nothing, knows_nothing_line
from distill.teachers.waiting import Outage, note_away, outage
from distill.tracking import Tracker
from distill.training.checkpoints import resumed_step, rewind_log
from distill.training.fit import is_done, is_saved
from distill.training.fitted import best_evaluation
from distill.training.interrupt import StopOnSignal
from distill.training.job import Job
from distill.training.log import Tail
from distill.wording import counted

if TYPE_CHECKING:
    from distill.driver.pipeline import Driver, Work  # which imports this module

POLL_S = 0.5
STOP_PATIENCE_S = 60.0
"""How long a worker group may take to start after Ctrl-C, and tasks to write checkpoints after an
error."""
FIRST_S = 1e9
"""More than any task takes: a task that so much waits for starts before the others."""
LOSSES, MEASURING = "losses", "measuring the experts' losses"
"""Verb of the tasks that measure the experts' losses, and their label."""


class Waiting:
    """Whether a fit waits for a teacher that is away, as lines for the terminal."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._folder = Path(job.folder)
        self._current: Outage | None = None
        if self._folder.exists():
            note_away(self._folder, None)  # left by a run that has ended

    def poll(self) -> str | None:
        """A line when it begins to wait, and when it continues."""
        before, self._current = self._current, outage(self._folder)
        if self._current is None:
            return None if before is None else f"{self._job.name}: all teachers respond; continuing"
        if before is not None or self._job.guidance is None:
            return None
        stream = self._job.guidance.stream
        since = self._current.noticed - stream.deadline_s
        step = resumed_step(self._folder)
        return (
            f"{self._job.name}: no replica of a teacher has been up since {_clock(since)} "
            f"({self._current.reason}); checkpoint of step {step:,} written; waiting until "
            f"{_clock(since + stream.recovery_s)} (stream.recovery_s {stream.recovery_s:g})"
        )


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))


class Watch:
    """Follows the metrics that fits write, into progress bars and (the student's) into MLflow."""

    def __init__(self, d: Work, jobs: list[Job], tracker: Tracker | None = None) -> None:
        self._progress = d.progress
        self._tracker = tracker
        self._tails = {job.name: Tail(Path(job.folder) / "metrics.jsonl") for job in jobs}
        self._choices = {
            job.name: ChoiceReader(job.total_steps)
            for job in jobs
            if job.kd is not None and job.kd.schedule.type == "auto" and not is_done(job)
        }
        self._totals = {job.name: job.total_steps for job in jobs if not is_done(job)}
        self._waits = [Waiting(job) for job in jobs if job.guidance is not None]
        # Of teachers that are queried about the data set's rows; warned of once.
        self._num_tokens = {
            teacher.name: teacher.width
            for job in jobs
            if job.guidance is not None and not job.sampling.writes
            for teacher in job.guidance.teachers
            if teacher.positions == "tokens"
        }
        for job in jobs:
            if is_done(job):
                d.progress.say(f"{job.name} is trained: {format_metrics(best_evaluation(job))}")
                continue
            if (note := job.replaced_aggregation) is not None:
                d.progress.say(note)
            total, step = job.total_steps, resumed_step(Path(job.folder))
            rewind_log(Path(job.folder), step)  # what is not to be done again
            if step:
                d.progress.say(f"{job.name}: resuming at step {step:,} of {total:,}")
            d.progress.update(job.name, step if step < total else None, total)

    def poll(self) -> None:
        for name, tail in self._tails.items():
            lines = tail.read()
            if self._tracker is not None and lines:
                self._tracker.lines(lines)
            for line in lines:
                if name in self._totals:
                    self._show(name, line["step"], line["metrics"])
                self._warn(line["metrics"])
                if name in self._choices and (choice := self._choices[name].read(line)):
                    self._progress.say(f"{name}: {choice.text}")
                    if self._tracker is not None:
                        self._tracker.tags({"distill.schedule": choice.type})

        for waiting in self._waits:
            if (line := waiting.poll()) is not None:
                self._progress.say(line)

    def _show(self, name: str, step: int, metrics: dict[str, float]) -> None:
        # At the last step the loss is logged first: the bar ends with the evaluation.
        is_before_the_end = step >= self._totals[name] and not any(
            key.startswith("eval.") for key in metrics
        )
        self._progress.update(name, None if is_before_the_end else step, metrics=metrics)

    def _warn(self, metrics: dict[str, float]) -> None:
        for name, num_tokens in list(self._num_tokens.items()):
            perplexity = metrics.get(f"teacher.{name}.perplexity", 0.0)
            if knows_nothing(perplexity, num_tokens):
                self._progress.say(knows_nothing_line(name, perplexity, num_tokens))
                del self._num_tokens[name]

    def end(self, name: str) -> None:
        self.poll()
        if name in self._totals:
            self._progress.update(name, self._totals[name])


def router_of(d: Work, experts: list[Job], parts: Parts | None) -> Job | None:
    """The job of the router, where the aggregation needs one and names no trained one."""
    config, aggregation = d.experiment.experts, d.experiment.aggregation
    is_needed = isinstance(aggregation, Routed) and aggregation.router is None
    if config is None or config.router is None or parts is None or not is_needed:
        return None
    built = router_job(config, parts, experts[0].data, d.run.experts, d.experiment.seed)
    return replace(built, stop_file=str(d.run.stop))


class Fits:
    """Tasks of a run, their progress, and what happens if one fails.

    ``wait`` runs them in the foreground. What is left can go on in the background while the driver
    serves teachers and trains the student: it then calls ``poll``.
    """

    def __init__(
        self, work: Work, interrupt: StopOnSignal, launcher: Launcher, memory: Memory | NoMemory
    ) -> None:
        self._work, self._interrupt, self._launcher = work, interrupt, launcher
        self._memory = memory
        self._tasks: Tasks | None = None
        self._watches: dict[str, Watch] = {}
        self._num_losses = [0, 0]
        """Measured, and to be measured."""
        self._error: Exception | None = None

    @cached_property
    def _room(self) -> Room:
        """For tasks while the student is not trained."""
        return self.whole_room

    @property
    def whole_room(self) -> Room:
        """While neither teachers nor the student run."""
        return whole_room(self._work.experiment.cluster, self._launcher)

    @property
    def tasks(self) -> Tasks:
        if self._tasks is None:  # of a cluster that is up
            self._tasks = Tasks(self._room, self._launcher)
        return self._tasks

    def add(self, tasks: Sequence[Task], jobs: Sequence[Job]) -> None:
        """``jobs``: those whose progress is shown: of the tasks, and others that are done."""
        watch = Watch(self._work, list(jobs))
        self._watches |= {job.name: watch for job in jobs}
        self._num_losses[1] += sum(task.verb == LOSSES for task in tasks)
        self.tasks.add(tasks)

    def poll(self, timeout_s: float = 0.0) -> None:
        """Start what there is room for, and show the progress. The error of a task is kept for
        ``wait``: what else runs is not lost."""
        if self._interrupt.is_set():
            self.tasks.stop()
        try:
            for task in self.tasks.poll(timeout_s):
                if task.verb == LOSSES:
                    self._num_losses[0] += 1
                    num_done, num_all = self._num_losses
                    self._work.progress.update(MEASURING, num_done, num_all)
                else:
                    self._watches[task.job.name].end(task.job.name)
                    self._memory.keep(task.job)
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
        self._interrupt.check()
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
                say = self._work.progress.say
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
        trainer = self._work.experiment.trainer
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
            say = self._work.progress.say
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
            self._work.run.ask_to_stop()
        is_limited = not self._interrupt.is_set()
        give_up = time.monotonic() + (STOP_PATIENCE_S if is_limited else float("inf"))
        while self._tasks.pending and time.monotonic() < give_up:
            try:
                list(self._tasks.poll(POLL_S))
            except DistillError:  # the first error is the run's
                continue
            except Exception:  # Ray itself has ended
                return


def run_experts(
    d: Driver,
    experts: list[Job],
    parts: Parts | None,
    others: Sequence[Job] = (),
    goes_on: bool = False,
) -> list[Job]:
    """Train experts and ``others``, and the router where one is needed: with them, or as soon as
    the experts have ended.

    ``goes_on``: of the others, those go on that fit next to teachers and student. Returns the jobs
    of the experts and, last, the router.
    """
    router = router_of(d, experts, parts)
    for job in [*experts, *others]:
        d.memory.restore(job)
    first, last = tasks_of(d, experts, router, parts, others)
    needed = [*experts, *([router] if router else [])]
    left = room_left(d.plan, d.fits.whole_room)
    if goes_on:
        last = [replace(task, is_background=left.holds([task.stage])) for task in last]
        d.fits.tasks.set_room(d.fits.whole_room, left)
    d.fits.add([*first, *last], [*needed, *others])
    d.fits.wait(task.name for task in [*first, *last] if not task.is_background)
    if goes_on:
        d.fits.go_on(left)
    return needed


def tasks_of(
    d: Driver,
    experts: list[Job],
    router: Job | None,
    parts: Parts | None,
    others: Sequence[Job],
) -> tuple[list[Task], list[Task]]:
    """What is still to be done, with estimates: of experts and router, and of the others, which
    the student does not wait for."""
    first = [Task(job, kind="expert") for job in experts if not is_saved(job)]
    if router is not None and not is_saved(router):
        assert parts is not None
        first += _router_tasks(d, router, parts, experts)
    tasks = _estimated(d, [*first, *_baseline_tasks(d, others)])
    return tasks[: len(first)], tasks[len(first) :]


def _baseline_tasks(d: Driver, jobs: Sequence[Job]) -> list[Task]:
    """Those that are not done."""
    task = d.plan.task
    left = [job for job in jobs if not task.is_baseline_done(job)]
    return [Task(job, task.fit_baseline, kind="baseline") for job in left]


def _router_tasks(d: Driver, router: Job, parts: Parts, experts: list[Job]) -> list[Task]:
    """Training the router; before it, if they are its targets, measuring each expert's losses on
    every labelled row, once."""
    assert d.experiment.experts is not None and d.experiment.experts.router is not None
    if d.experiment.experts.router.targets == "partition" or is_done(router):
        d.memory.restore(router)
        return [Task(router, kind="router")]

    def with_targets(job: Job) -> Job:
        own = router_targets(parts, experts)
        job = replace(job, train_labels=own["train"], validation_labels=own["validation"])
        d.memory.restore(job)  # now that its labels are known
        return job

    losses = [
        Task(job, measure_losses, LOSSES, after=(f"fit:{job.name}",), kind=LOSSES)
        for job in experts
        if not losses_file(job).exists()
    ]
    after = tuple(task.name for task in losses) or tuple(f"fit:{job.name}" for job in experts)
    return [*losses, Task(router, after=after, kind="router", prepare=with_targets)]


def _estimated(d: Driver, tasks: list[Task]) -> list[Task]:
    """The tasks with the estimates that decide their order. The student waits for all but the
    baselines."""
    if len(tasks) < 2:
        return tasks
    times = JobTimes(d.plan)
    student = times.student
    labelled = len(d.plan.rows.rows("train")) + len(d.plan.rows.rows("validation"))

    def seconds(task: Task) -> float:
        return times.forward(task.job, labelled) if task.verb == LOSSES else times(task.job)

    return [
        replace(task, seconds=seconds(task), rest=0.0 if task.kind == "baseline" else student)
        for task in tasks
    ]


def run_tasks(d: Driver, jobs: list[Job]) -> None:
    """Train these to their end, before what else is left to do."""
    for job in jobs:
        d.memory.restore(job)
    tasks = _estimated(d, [Task(job) for job in jobs if not is_saved(job)])
    tasks = [replace(task, rest=FIRST_S) for task in tasks]
    d.fits.add(tasks, jobs)
    d.fits.wait(task.name for task in tasks)
