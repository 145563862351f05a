"""Experts, router and baselines as tasks: what starts when, next to the student too."""

from __future__ import annotations

import io
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distill.cluster.ray_tasks import RayTask
from distill.config import parse
from distill.driver.checks.check import check
from distill.driver.context import Driver
from distill.driver.run_jobs import jobs_of, own_job
from distill.driver.stages import task_stages
from distill.driver.task_stages import TaskStages
from distill.errors import Interrupted, TeacherAway, TrainingError
from distill.report.progress import Progress
from distill.run_folder import RunFolder
from distill.training.interrupt import StopOnSignal
from distill.training.job import Job
from tests.toys import DOMAINS, toy_experiment
from tests.toys_tasks import Scripted, write_results

FITS = {f"fit:{name}" for name in DOMAINS}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fits")


class Run:
    """The driver of a run whose tasks are scripted."""

    def __init__(self, root: Path, output: Path, launcher: Scripted, **changes: Any) -> None:
        raw: dict[str, Any] = {**toy_experiment(root), "output": str(output)}
        raw["experts"]["router"]["targets"] = changes.pop("targets", "lowest_loss")
        raw["baselines"] = [
            {"type": "labels_only", "name": name} for name in changes.pop("baselines", ["alone"])
        ]
        raw["trainer"]["num_cpus_per_worker"] = changes.pop("cpus_of_baselines", 1)
        raw["cluster"] = {"num_cpus": launcher.num_cpus, **changes.pop("cluster", {})}
        plan = check(parse(raw | changes))
        run = RunFolder(plan.experiment.output)
        self.printed = io.StringIO()
        self.launcher = launcher
        self.interrupt = StopOnSignal(run.request_stop)
        progress = Progress(self.printed)
        tracker: Any = None
        self.d = Driver(plan, run, progress, tracker, self.interrupt)
        self.tasks = TaskStages(self.d, launcher)
        self.student = own_job(self.d)
        self.jobs = jobs_of(self.d, self.student)

    def experts_trained(self, goes_on: bool = False) -> list[str]:
        self.tasks.run(task_stages(self.d.plan, self.jobs), goes_on)
        return [job.name for job in self.jobs.teachers]


def test_the_router_starts_when_the_experts_have_ended_not_the_baselines(
    root: Path, tmp_path: Path
) -> None:
    last = [f"fit:{name}" for name in DOMAINS] + [f"losses:{name}" for name in DOMAINS]
    launcher = Scripted(num_cpus=4, order=[*last, "fit:router", "fit:alone"])
    run = Run(root, tmp_path, launcher)
    assert run.experts_trained() == [*DOMAINS, "router"]
    events = launcher.events
    assert events.index("+fit:router") < events.index("-fit:alone")
    for name in DOMAINS:  # its own expert is enough
        assert events.index(f"-fit:{name}") < events.index(f"+losses:{name}")
    assert max(events.index(f"-losses:{name}") for name in DOMAINS) < events.index("+fit:router")
    assert events.index("+losses:" + DOMAINS[0]) < events.index(f"-fit:{DOMAINS[2]}")
    # films, meals and tools have losses 5, 5 and 5: a tie goes to the row's own expert.
    targets = launcher.jobs["fit:router"].train_labels
    assert targets is not None and run.jobs.parts is not None
    assert targets.tolist() == run.jobs.parts.of("train").tolist()


def test_experts_and_router_come_before_baselines(root: Path, tmp_path: Path) -> None:
    launcher = Scripted(num_cpus=2)
    names, cluster = ["alone", "again"], {"max_tasks": 1}
    Run(root, tmp_path, launcher, baselines=names, cluster=cluster).experts_trained()
    started = [event[1:] for event in launcher.events if event[0] == "+"]
    assert started[-3:] == ["fit:router", "fit:alone", "fit:again"]
    assert launcher.most_at_once == 1


@pytest.mark.parametrize(("max_tasks", "most"), [(None, 5), (1, 1), (2, 2)])
def test_max_tasks_limits_what_runs_at_once(
    root: Path, tmp_path: Path, max_tasks: int | None, most: int
) -> None:
    launcher = Scripted(num_cpus=8)
    cluster = {"max_tasks": max_tasks}
    Run(root, tmp_path, launcher, targets="partition", cluster=cluster).experts_trained()
    assert launcher.most_at_once == most


def test_on_a_joined_cluster_ray_queues_all_tasks(root: Path, tmp_path: Path) -> None:
    launcher = Scripted(num_cpus=1)  # now: it may add nodes for those that wait
    run = Run(root, tmp_path, launcher, targets="partition", cluster={"address": "auto"})
    run.experts_trained(goes_on=True)
    assert launcher.most_at_once == 5
    assert not run.tasks.tasks.pending  # none next to the student


def test_longer_experts_start_first(root: Path, tmp_path: Path) -> None:
    launcher = Scripted(num_cpus=2)
    run = Run(root, tmp_path, launcher, targets="partition", cluster={"max_tasks": 1})
    rows = {DOMAINS[0]: 20, DOMAINS[1]: 54, DOMAINS[2]: 30}
    experts = [replace(e, train_rows=e.train_rows[: rows[e.name]]) for e in run.jobs.experts]
    run.jobs = replace(run.jobs, experts=tuple(experts))
    run.experts_trained()
    started = [event[5:] for event in launcher.events if event.startswith("+fit:")]
    assert [name for name in started if name in DOMAINS] == [DOMAINS[1], DOMAINS[2], DOMAINS[0]]


def test_baselines_go_on_next_to_the_student_where_there_is_room(
    root: Path, tmp_path: Path
) -> None:
    # Teachers and router need 0.4 CPUs, the student 1: of 3 CPUs one baseline has room.
    order = [*FITS, *(f"losses:{name}" for name in DOMAINS), "fit:router", "fit:one", "fit:two"]
    launcher = Scripted(num_cpus=3, order=order)
    run = Run(root, tmp_path, launcher, baselines=["one", "two"])
    assert run.experts_trained(goes_on=True) == [*DOMAINS, "router"]
    assert run.tasks.tasks.pending == ["fit:one", "fit:two"]
    assert launcher.events[-1] == "-fit:router" and "+fit:two" not in launcher.events
    run.tasks.poll_during("student")
    run.tasks.wait_for_all()
    assert {"-fit:one", "-fit:two"} <= set(launcher.events)


def test_next_to_the_student_no_more_start_than_fit(root: Path, tmp_path: Path) -> None:
    launcher = Scripted(num_cpus=3, order=[*FITS, "fit:router"])
    names = ["one", "two", "three", "four"]
    run = Run(root, tmp_path, launcher, targets="partition", baselines=names)
    run.experts_trained(goes_on=True)
    launcher.most_at_once = 0
    begun = len(launcher.events)
    while run.tasks.tasks.pending:
        run.tasks.poll_during("student")
    assert len(launcher.events) > begun and launcher.most_at_once == 1


@pytest.mark.parametrize("changes", [{"num_cpus": 2}, {"num_cpus": 8, "max_tasks": 1}])
def test_without_room_baselines_end_before_the_teachers_start(
    root: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    launcher = Scripted(num_cpus=changes.pop("num_cpus"))
    run = Run(root, tmp_path, launcher, cluster=changes)
    run.experts_trained(goes_on=True)
    assert launcher.events[-1].startswith("-") and not run.tasks.tasks.pending
    assert "-fit:alone" in launcher.events


def test_an_error_next_to_the_student_is_raised_when_it_has_ended(
    root: Path, tmp_path: Path
) -> None:
    error = TrainingError("training 'alone' was lost: out of memory")
    launcher = Scripted(4, [*FITS, "fit:router"], {"fit:alone": error})
    run = Run(root, tmp_path, launcher, targets="partition")
    run.experts_trained(goes_on=True)
    run.tasks.poll_during("student")  # raises nothing: the student is trained meanwhile
    assert not run.d.run.stop.exists()  # so it goes on to its end
    assert "error: training 'alone' was lost: out of memory" in run.printed.getvalue()
    with pytest.raises(TrainingError, match="out of memory"):
        run.tasks.check()
    with pytest.raises(TrainingError, match="out of memory"):
        run.tasks.wait_for_all()


def test_the_others_write_checkpoints_before_an_error_is_raised(root: Path, tmp_path: Path) -> None:
    first = f"fit:{DOMAINS[0]}"
    launcher = Scripted(3, [first], {first: TrainingError("training failed")})
    run = Run(root, tmp_path, launcher)
    with pytest.raises(TrainingError, match="training failed"):
        run.experts_trained()
    assert run.d.run.stop.exists()
    starts, ends = ([e for e in launcher.events if e[0] == sign] for sign in "+-")
    assert len(starts) == 3 == len(ends)  # none started after it, and all that ran were waited for


def test_a_task_that_was_interrupted_is_not_followed_by_others(root: Path, tmp_path: Path) -> None:
    first = f"fit:{DOMAINS[0]}"
    launcher = Scripted(2, [first], {first: Interrupted("stopped")})
    run = Run(root, tmp_path, launcher)
    with pytest.raises(Interrupted):
        run.experts_trained()
    assert len([event for event in launcher.events if event[0] == "+"]) == 2


def test_after_a_signal_no_task_starts(root: Path, tmp_path: Path) -> None:
    launcher = Scripted(2)
    run = Run(root, tmp_path, launcher)
    with run.interrupt:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(Interrupted):
            run.experts_trained()
    assert launcher.events == []


def test_what_is_done_is_not_started_again(root: Path, tmp_path: Path) -> None:
    launcher = Scripted(4)
    run = Run(root, tmp_path, launcher)
    for job in [*run.jobs.experts, *run.jobs.baselines]:
        write_results(job)
    assert run.experts_trained() == [*DOMAINS, "router"]
    assert launcher.events == ["+fit:router", "-fit:router"]  # losses are there too
    run.tasks.run_fits(run.jobs.experts)
    assert len(launcher.events) == 2


def test_a_job_that_cannot_be_completed_ends_the_run(root: Path, tmp_path: Path) -> None:
    def fail(job: Job) -> Job:
        raise TrainingError("losses.npz is incomplete")

    run = Run(root, tmp_path, Scripted(4), targets="partition")
    first, second = run.jobs.experts[:2]
    run.tasks.add([RayTask(first), RayTask(second, prepare=fail)], [first, second])
    with pytest.raises(TrainingError, match="incomplete"):
        run.tasks.wait([f"fit:{second.name}"])
    assert not run.tasks.tasks.pending  # nothing is waited for that has not started


def test_a_warm_start_finds_room_next_to_the_baselines(root: Path, tmp_path: Path) -> None:
    order = [*FITS, "fit:router", "fit:one", "fit:brief"]
    launcher = Scripted(num_cpus=3, order=order)
    names = ["one", "two", "three", "four", "five", "six"]
    run = Run(root, tmp_path, launcher, targets="partition", baselines=names)
    run.experts_trained(goes_on=True)
    assert len(run.tasks.tasks.pending) > 1
    begun = len(launcher.events)
    brief = replace(run.student, name="brief", folder=str(tmp_path / "brief"))
    run.tasks.run_fits([brief])
    # The student's CPU is free: the brief fit starts although a baseline runs.
    assert launcher.events[begun] == "+fit:brief"
    running = [e[1:] for e in launcher.events if e[0] == "+" and f"-{e[1:]}" not in launcher.events]
    assert len(running) == 1  # as many as the student leaves room for
    run.tasks.wait_for_all()
    assert not run.tasks.tasks.pending
    assert all((job.model_folder).exists() for job in run.jobs.baselines)


def test_a_task_whose_teacher_stays_away_ends_the_run_as_a_stop(root: Path, tmp_path: Path) -> None:
    first = f"fit:{DOMAINS[0]}"
    launcher = Scripted(2, [first], {first: TeacherAway("teacher 'films' was away for 1800 s")})
    run = Run(root, tmp_path, launcher)
    with pytest.raises(Interrupted, match="'films' was away"):
        run.experts_trained()
    assert "a teacher stays away: the run ends" in run.printed.getvalue()
    assert len([event for event in launcher.events if event[0] == "+"]) == 2
