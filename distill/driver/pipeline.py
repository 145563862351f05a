"""The driver: check, train experts, serve them, train the student, evaluate, record.

Every phase keeps what it finished in the run folder, so the same command resumes anywhere.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from distill.cluster.connect import check_address, check_room, connect
from distill.cluster.group import GroupLauncher
from distill.cluster.placement import check_labels, check_persistent_paths
from distill.cluster.ray_tasks import Launcher, RayLauncher
from distill.config import Experiment
from distill.config.values import flatten
from distill.driver.checks.check import check
from distill.driver.context import Command, Driver, Work
from distill.driver.finished import Result, finished, keep
from distill.driver.memory.store import open_memory
from distill.driver.quiet import silence
from distill.driver.run_jobs import Jobs, jobs_of, jobs_of_teachers, own_job
from distill.driver.serve import (
    ServedTeachers,
    served_as_actors,
)
from distill.driver.stages import stages_of, task_stages, tree
from distill.driver.student_stages import StudentStages
from distill.driver.task_stages import TaskStages
from distill.driver.warm_start import FILE as DECISION
from distill.driver.warm_start import reads_past_runs, undecided
from distill.errors import Interrupted, TeacherAway
from distill.report.progress import Progress
from distill.run_folder import RunFolder
from distill.tasks.chained import Chained, value_of_teachers
from distill.tasks.outcome import Outcome, evaluate
from distill.teachers.setup import TeacherSetup
from distill.tracking import KEPT, Tracker, check_reachable, not_reachable, silence_of
from distill.training.checkpoints import check_is_recent
from distill.training.fit import is_saved
from distill.training.interrupt import StopOnSignal
from distill.training.job import Job
from distill.wording import counted


@contextmanager
def opened(
    experiment: Experiment, progress: Progress, command: Command = "train"
) -> Iterator[Work]:
    """Everything checked and the run folder locked. Interrupted, out of here, names what is kept
    of a run that was stopped."""
    silence()
    run = RunFolder(experiment.output)
    if not run.finished.exists():  # its result needs neither
        _check_addresses(experiment, run, progress, command)
    check_persistent_paths(experiment)
    plan = check(experiment, progress.say, command)
    run.claim(experiment, plan.identity)
    with closing(run):
        try:
            yield Work(plan, run, progress)
        except (Interrupted, KeyboardInterrupt) as error:
            at_once = isinstance(error, KeyboardInterrupt)
            stopped = _stopped(experiment.output, run.kept(), at_once)
            if isinstance(error, TeacherAway):
                raise TeacherAway(f"{error}: {stopped}; the same command resumes") from None
            raise Interrupted(stopped) from None


def _check_addresses(
    experiment: Experiment, run: RunFolder, progress: Progress, command: Command = "train"
) -> None:
    reason = silence_of(experiment.tracking)
    if reason is not None:
        if reads_past_runs(experiment, command) and not (run.root / DECISION).exists():
            check_reachable(experiment.tracking)
        progress.say(not_reachable(experiment.tracking, experiment.output, reason))
    check_address(experiment.cluster)


def _stopped(output: str, kept: list[str], at_once: bool) -> str:
    how = "stopped at once" if at_once else "stopped"
    if not kept:
        return f"{how} before the first checkpoint: {output} has nothing to resume"
    return f"{how}; {output} keeps {', '.join(kept)}"


@contextmanager
def driver(work: Work) -> Iterator[Driver]:
    """MLflow and Ray up; both down at the end."""
    experiment, plan, run, say = work.experiment, work.plan, work.run, work.progress.say
    if run.finished.exists():
        _check_addresses(experiment, run, work.progress)
    address = experiment.cluster.address
    say("starting Ray" if address is None else f"joining the Ray cluster at {address}")
    with (
        Tracker(experiment.tracking, run.root) as tracker,
        connect(experiment.cluster),
        # Last: ray.init sets handlers of its own.
        StopOnSignal(run.request_stop, lambda: say(STOPPING)) as interrupt,
        closing(open_memory(experiment.memory, say)) as memory,
    ):
        check_room(experiment.cluster, plan.num_cpus, plan.num_gpus, say)
        check_labels(plan.experiment, say)
        say("Ctrl-C stops after a checkpoint; the same command resumes")
        yield Driver(plan, run, work.progress, tracker, interrupt, memory)


STOPPING = "stopping after the next checkpoint; Ctrl-C again stops at once"


def train(experiment: Experiment, progress: Progress) -> Outcome:
    """The main job: from a configuration to an exported student and its comparison table."""
    started = time.perf_counter()
    with opened(experiment, progress) as work:
        if (result := finished_before(work, "train")) is not None:
            student, report = work.run.student, work.run.report
            return Outcome(result.rows, result.metrics, student, report, {}, result.open_command)
        check_is_recent(work.run.fit, work.experiment.aggregation.version)
        with driver(work) as d, TaskStages(d, RayLauncher()) as tasks:
            outcome = _train(d, tasks, GroupLauncher(d.run.root / "ray"))
            d.progress.say("recording the results in MLflow")
            outcome.record(d.tracker, seconds=time.perf_counter() - started)
            outcome = replace(outcome, open_command=d.tracker.open_command)
        result = Result(outcome.rows, outcome.metrics, outcome.open_command)
        keep(work.run, work.plan, "train", result)
        return outcome


def _train(d: Driver, tasks: TaskStages, groups: Launcher[Job]) -> Outcome:
    """Every stage of the graph when those that it needs have ended."""
    record_inputs(d, without=undecided(d.experiment))
    student = own_job(d)
    report_losses(d, student)
    jobs = jobs_of(d, student)
    stages = stages_of(d.plan, jobs)
    for line in tree(stages):
        d.progress.say(line)
    with ServedTeachers(partial(served_as_actors, d)) as serve:
        students = StudentStages(d, jobs.teachers, tasks, groups, serve, value_of_teachers)
        tasks.run(stages, goes_on=True)
        if d.experiment.has_teachers and d.experiment.cache.type == "memory":
            d.progress.say("cache.type memory: a restarted run queries the teachers again")
        for stage in stages:
            if stage.kind in ("warm start", "link", "student"):
                students.run(stage)
        trained = students.trained.with_teachers(students.teachers())
        tasks.wait_for_all()  # the evaluation measures latencies
        return _evaluated(students.d, trained, jobs)


def _evaluated(d: Driver, chained: Chained, jobs: Jobs) -> Outcome:
    baselines = list(jobs.baselines)
    outcome = evaluate(d.plan, d.run, chained, baselines, jobs.parts, d.interrupt, d.progress.say)
    if d.plan.links:
        outcome.metrics["chain.links"] = chained.num_kept
    outcome.metrics.update(_meta_features(d, chained.first.teacher_setup, outcome))
    outcome.metrics.update(d.memory.metrics())
    return outcome


def finished_before(work: Work, command: Command) -> Result | None:
    """The result of a run that has nothing left to do; records that MLflow lacks are sent."""
    result = finished(work.run, work.plan, command)
    if result is None:
        return None
    if (work.run.root / KEPT).exists():
        with Tracker(work.experiment.tracking, work.run.root):
            pass
    work.progress.say(f"{work.experiment.output} is finished; nothing to do")
    return result


def _meta_features(
    d: Driver, teacher_setup: TeacherSetup | None, outcome: Outcome
) -> dict[str, float]:
    """``meta.*``, by which later sweeps find this run; see search/configuration_memory.py."""
    if (
        teacher_setup is None
        or (key := d.plan.task.memory_key(d.plan.corpus, teacher_setup)) is None
    ):
        return {}
    d.tracker.tags({"distill.task": key})
    task, student, corpus = d.plan.task, d.experiment.student, d.plan.corpus
    params = task.largest_teacher(teacher_setup)
    return task.meta_features(corpus, teacher_setup, student, outcome.metrics, params)


def train_experts(experiment: Experiment, progress: Progress) -> dict[str, Path]:
    """Experts and router alone; their Hugging Face folders by name."""
    with opened(experiment, progress) as work:
        jobs = jobs_of_teachers(work)
        if all(map(is_saved, jobs.teachers)):
            progress.say(f"the experts in {experiment.output} are trained; nothing to do")
        else:
            stages = [stage for stage in task_stages(work.plan, jobs) if stage.kind != "baseline"]
            with driver(work) as d, TaskStages(d, RayLauncher()) as tasks:
                record_inputs(d)
                tasks.run(stages)
    return {job.name: job.model_folder for job in jobs.teachers}


def record_inputs(d: Driver, without: Sequence[str] = ()) -> None:
    """The configuration, but for keys that are decided later, and the data."""
    d.tracker.describe(d.experiment)
    params = flatten(d.experiment.model_dump(mode="json"))
    d.tracker.params({key: value for key, value in params.items() if key not in without})
    rows = d.plan.rows
    for split in ("train", "transfer", "validation", "test"):
        num_rows = len(rows.rows(split))
        if num_rows:
            source = str(d.experiment.data.path)
            d.tracker.dataset(Path(source).stem, rows.fingerprint, source, split, num_rows=num_rows)
    if known := d.plan.task.data_metrics(rows):
        d.tracker.metrics(known, 0)
    d.tracker.artifact(d.run.root / "config.yaml")


def report_losses(d: Driver, student: Job) -> None:
    """Texts that were truncated or dropped: allowed, and never silent."""
    cut, dropped = student.data.open().num_truncated, d.plan.corpus.num_dropped
    if unlearnable := d.plan.rows.num_unlearnable:
        d.progress.say(f"{counted(unlearnable, 'row')} without target tokens dropped")
        d.tracker.metrics({"data.unlearnable_rows": unlearnable}, 0)
    if cut:
        length, rule = student.data.max_length, d.experiment.data.cut
        rows = counted(cut, "row")
        d.progress.say(f"{rows} truncated to data.max_length {length} tokens (data.cut {rule})")
    if dropped:
        d.progress.say(f"{counted(dropped, 'empty text')} dropped (data.on_empty_text)")
    d.tracker.metrics({"data.truncated_rows": cut, "data.dropped_rows": dropped}, 0)
