"""Warm start, links of a chain and the student: what is trained with teachers.

They come after the tasks, one after the other. A worker group trains a link or the student, and its
teachers are served until another stage needs others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from distill.cluster.placement import check_labels
from distill.cluster.ray_tasks import Launcher
from distill.config import Experiment, Trainer
from distill.driver.chain_links import FILE, ChainRecord, decision_on, line_of
from distill.driver.checks.operations import operations_of_rank
from distill.driver.checks.resources import machine_cpus
from distill.driver.context import Driver
from distill.driver.fit_progress import FitWatch
from distill.driver.serve import ServedTeachers, teacher_setup_of_link, teachers_of
from distill.driver.stages import Stage
from distill.driver.task_stages import POLL_S, STOP_PATIENCE_S, TaskStages
from distill.driver.warm_start import warm_started
from distill.errors import Interrupted
from distill.tasks.chained import Chained, Link
from distill.tasks.plan import Plan
from distill.teachers.served import groups
from distill.teachers.setup import TeacherSetup
from distill.tracking import Tracker
from distill.training.deepspeed_engine import is_compiled
from distill.training.fit import fit_and_save, is_done
from distill.training.job import Job
from distill.training.threads import decided, usable_cpus
from distill.wording import counted

MeasureTeachers = Callable[[Plan, Job, Callable[[], bool]], float | None]
"""The aggregated teachers of a job on validation; see ``value_of_teachers`` of tasks/chained.py."""


class StudentStages:
    """Stages that need teachers, each run once or, where it is done, read from the run folder.

    ``experts``: the jobs of the run's own teachers and its router; ``launcher``: of worker groups.
    """

    def __init__(
        self,
        d: Driver,
        experts: list[Job],
        tasks: TaskStages,
        launcher: Launcher[Job],
        serve: ServedTeachers,
        measure: MeasureTeachers,
    ) -> None:
        self.d = d
        """After the warm start with the values that it has chosen."""
        self._experts, self._tasks, self._launcher = experts, tasks, launcher
        self._serve, self._measure = serve, measure
        self._links: list[Link] = []
        self._student: Job | None = None

    def run(self, stage: Stage) -> None:
        assert stage.job is not None
        if stage.kind == "warm start":
            fits = self._tasks.run_fits
            self.d, _ = warm_started(self.d, stage.job, self.teachers, fits)
        elif stage.kind == "link":
            self._run_link(stage.job)
        else:
            assert stage.kind == "student"
            job = self._complete(stage.job)
            self._student = self._train(self._with_served(job), self.d.tracker)

    def teachers(self) -> TeacherSetup | None:
        """The experiment's, served; None for an experiment without any."""
        return None if self._first is None else self._serve(self._first)

    @property
    def trained(self) -> Chained:
        """The links and the student."""
        assert self._student is not None
        return Chained(self._student, tuple(self._links))

    def _run_link(self, job: Job) -> None:
        """Trained, exported, measured, and kept or dropped. None follows one that is dropped."""
        if self._links and not self._links[-1].decision.is_kept:
            return
        settings = self.d.experiment.chain
        assert settings is not None
        path = self.d.run.links / FILE
        record = ChainRecord.read(path, job.selection.metric)
        job, index = self._complete(job), len(self._links)
        if len(record.links) == index:
            is_first = index == 0
            served = self._train(self._with_served(job, is_needed=is_first))
            if is_first:
                teachers = self._measure(self.d.plan, served, self.d.interrupt.is_set)
                record = replace(record, teachers=teachers)
            fit_and_save(job)  # which is trained: exports it
            decision = decision_on(job, settings, record)
            record = replace(record, links=(*record.links, decision))
            record.write(path)
        decision = record.links[index]
        self.d.progress.say(line_of(decision, record.metric))
        self._links.append(Link(job, decision))

    @cached_property
    def _first(self) -> TeacherSetup | None:
        """The experiment's teachers, not yet served: made once, as their files are hashed."""
        return teachers_of(self.d, self._experts) if self.d.experiment.has_teachers else None

    def _complete(self, job: Job) -> Job:
        """With its teachers, not yet served, and all its settings decided."""
        kept = [link.job for link in self._links if link.decision.is_kept]
        teacher_setup = teacher_setup_of_link(self.d, kept[-1]) if kept else self._first
        return with_threads(self.d, distilled(job, self.d.experiment, teacher_setup))

    def _with_served(self, job: Job, is_needed: bool = False) -> Job:
        """With its teachers served, unless it is trained; ``is_needed``: then too."""
        self.d.memory.restore(job)
        if job.teacher_setup is None or (is_done(job) and not is_needed):
            return job
        return replace(job, teacher_setup=self._serve(job.teacher_setup))

    def _train(self, job: Job, tracker: Tracker | None = None) -> Job:
        """To its end, or from where it stands; ``tracker``: where its metrics are logged."""
        d = self.d
        watch = FitWatch(d, [job], tracker)
        if not is_done(job):
            check_labels(d.experiment, d.progress.say, only="trainer.")  # nodes come and go
            d.progress.say(_starting(job.name, d.experiment.trainer))
            if job.threads.cached != job.threads.first and job.total_steps > job.steps_per_epoch:
                d.progress.say(_threads_line(job))
            group = self._launcher.start(job)
            polls_left = STOP_PATIENCE_S / POLL_S
            while not self._launcher.wait([group], POLL_S):
                watch.poll()
                self._tasks.poll_during(job.name)
                polls_left -= d.interrupt.is_set()
                if polls_left < 0 and not (Path(job.folder) / "metrics.jsonl").exists():
                    raise Interrupted(f"stopped before the worker group of {job.name} had started")
            self._launcher.check(group, job.name)
        watch.end(job.name)
        d.memory.keep(job)
        self._tasks.check()
        return job


def distilled(job: Job, experiment: Experiment, teacher_setup: TeacherSetup | None) -> Job:
    """The job, distilled from these teachers with the settings of the experiment."""
    sampling: Any = experiment.sampling
    names = [t.name for t in teacher_setup.teachers] if teacher_setup else []
    if names and getattr(sampling, "teacher", None) not in (None, *names):
        sampling = sampling.model_copy(update={"teacher": None})  # a link is the only teacher
    return replace(
        job,
        teacher_setup=teacher_setup,
        objective=experiment.objective if teacher_setup else None,
        kd=experiment.kd if teacher_setup else None,
        sampling=sampling,
        optimizer=experiment.optimizer,
    )


def with_threads(d: Driver, job: Job) -> Job:
    """The job with the number of threads that it computes with once its teachers are idle."""
    experiment, cluster = d.experiment, d.experiment.cluster
    served = job.teacher_setup.served if job.teacher_setup else ()
    trainer = decided(
        experiment.trainer,
        Path(job.folder),
        [group[0].serving for group in groups(served)],
        # On a cluster, which nodes teachers and ranks are on is not known here.
        usable_cpus(machine_cpus(cluster)) if cluster.address is None else 0,
        operations_of_rank(d.plan, job) if job.are_outputs_cached else 0.0,
        job.are_outputs_cached,
    )
    return replace(job, trainer=trainer)


def _threads_line(job: Job) -> str:
    threads = job.threads
    return (
        f"{job.name}: {counted(threads.cached, 'thread')} for each rank from the second epoch on, "
        f"when all teacher outputs are cached ({threads.first} in the first)"
    )


def _starting(name: str, trainer: Trainer) -> str:
    owner = "the student" if name == "student" else name
    ranks = counted(trainer.num_workers, "rank")
    if trainer.engine != "deepspeed" or trainer.num_gpus_per_worker > 0 or is_compiled():
        return f"starting {owner}'s worker group ({ranks})"
    return (
        f"starting {owner}'s worker group ({ranks}); on the first run on a machine DeepSpeed "
        "compiles an operator, which takes about a minute"
    )
