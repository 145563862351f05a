"""Threads of a rank: a function of the step, decided once and kept with the fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from distill.cluster.connect import own_environment
from distill.config import Cache, Serving, Trainer, parse
from distill.config.moe import KnowledgeAugmentation
from distill.driver.checks.check import check
from distill.driver.checks.operations import operations_of_rank
from distill.driver.student_stages import with_threads
from distill.errors import Interrupted
from distill.run_folder import OPERATIONAL
from distill.sampling import StudentText
from distill.training.fit import fit, load_best
from distill.training.job import Job
from distill.training.threads import (
    FILE,
    MIN_OPERATIONS,
    Threads,
    decided,
    shared_threads,
    threads_of,
    usable_cpus,
)
from tests.toys_language import language_experiment
from tests.training.test_language_fit import job_of

TWO_REPLICAS = [Serving(num_cpus=1), Serving(num_cpus=0.5, replicas=2)]


@pytest.fixture(autouse=True)
def threads_of_this_process() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def decide(folder: Path, trainer: Trainer | None = None, **changes: Any) -> int | str | None:
    """Of a large student whose teachers have two of this machine's eight CPUs."""
    given: dict[str, Any] = {
        "processes": TWO_REPLICAS,
        "num_usable": 8,
        "operations": MIN_OPERATIONS,
        "are_cached": True,
    }
    return decided(trainer or Trainer(), folder, **given | changes).num_threads_cached


def test_the_second_epoch_begins_with_the_other_number() -> None:
    threads = Threads(first=1, cached=3, steps_per_epoch=4)
    assert [threads.at(step) for step in range(7)] == [1, 1, 1, 1, 3, 3, 3]


@pytest.mark.parametrize(
    ("trainer", "num_usable", "expected"),
    [
        ({}, 8, 3),  # its own CPU, and two of the teachers'
        ({}, 2, 2),  # never more than the machine has
        ({"num_workers": 2}, 8, 2),  # one of the teachers' for each rank
        ({"num_workers": 2}, 3, 1),  # 1.5 CPUs each
        ({"num_workers": 3}, 8, 1),
        ({"num_cpus_per_worker": 2}, 8, 4),
        ({"num_cpus_per_worker": 0.5}, 8, 2),
        ({"num_cpus_per_worker": 4}, 2, 4),  # never fewer than its own
    ],
)
def test_idle_teachers_give_their_cpus_in_equal_shares(
    trainer: dict[str, Any], num_usable: int, expected: int
) -> None:
    assert shared_threads(Trainer(**trainer), TWO_REPLICAS, num_usable) == expected


def test_shares_that_were_rounded_down_make_a_whole_cpu() -> None:
    """``num_cpus: auto`` of three teachers on two CPUs is 0.33 each."""
    assert shared_threads(Trainer(), [Serving(num_cpus=0.33)] * 3, 2) == 2
    assert shared_threads(Trainer(), [Serving(num_cpus=0.3)] * 3, 2) == 1


def test_a_machine_has_at_most_the_cpus_that_this_process_may_use() -> None:
    assert usable_cpus(1) == 1
    assert 1 <= usable_cpus(1e6) < 1e6


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 3),
        ({"are_cached": False}, 1),
        ({"operations": 0.99 * MIN_OPERATIONS}, 1),
        ({"num_usable": 0}, 1),  # a cluster
        ({"trainer": Trainer(num_gpus_per_worker=0.5)}, 1),
        ({"trainer": Trainer(device="cuda")}, 1),
        ({"trainer": Trainer(num_threads_cached=5), "operations": 0}, 5),
        ({"trainer": Trainer(num_threads_cached=None, num_cpus_per_worker=2)}, 2),
    ],
)
def test_what_is_decided(tmp_path: Path, changes: dict[str, Any], expected: int) -> None:
    assert decide(tmp_path / "fit", **changes) == expected


def test_a_resumed_fit_has_the_number_that_it_began_with(tmp_path: Path) -> None:
    assert decide(tmp_path) == 3
    assert decide(tmp_path, num_usable=2) == 3, "on another machine"
    assert decide(tmp_path, processes=[]) == 3, "with other teachers' CPUs"
    assert decide(tmp_path, Trainer(num_cpus_per_worker=2)) == 4, "with other ranks it is decided"
    assert decide(tmp_path, Trainer(num_threads_cached=1)) == 1, "a number is obeyed"


def test_a_fit_of_an_older_version_goes_on_as_it_began(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "step-00000200").mkdir(parents=True)
    assert decide(tmp_path) == 1
    assert not (tmp_path / FILE).exists()
    assert "trainer.num_threads_cached" in OPERATIONAL  # its folder has no such key


def test_undecided_and_uncached_fits_keep_their_number() -> None:
    """Trials of a sweep are not decided: their teachers' CPUs are for all of them."""
    assert threads_of(Trainer(), 4, are_cached=True) == Threads(1, 1, 4)
    number = Trainer(num_threads_cached=3, num_cpus_per_worker=2)
    assert threads_of(number, 4, are_cached=True) == Threads(2, 3, 4)
    assert threads_of(number, 4, are_cached=False) == Threads(2, 2, 4)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """One thread in the first epoch, two in the second, an evaluation after each step."""
    intervals = {
        "epochs": 2,
        "batch_size": 16,
        "log_every": 1,
        "eval_every": 1,
        "num_threads_cached": 2,
    }
    return job_of(tmp_path_factory.mktemp("threads"), trainer=intervals)


def test_answers_that_change_or_are_not_kept_are_not_cached(job: Job) -> None:
    teacher_setup = job.teacher_setup
    assert teacher_setup is not None and job.are_outputs_cached
    assert not replace(job, teacher_setup=None).are_outputs_cached
    assert not replace(job, sampling=StudentText(type="on_policy")).are_outputs_cached
    uncached = replace(teacher_setup, cache=Cache(type="none"))
    assert not replace(job, teacher_setup=uncached).are_outputs_cached
    serving = Serving(moe=KnowledgeAugmentation())
    changing = tuple(replace(spec, serving=serving) for spec in teacher_setup.teachers)
    assert not replace(
        job, teacher_setup=replace(teacher_setup, teachers=changing)
    ).are_outputs_cached


def test_a_fit_stopped_at_either_side_of_the_switch_is_undisturbed(
    job: Job, tmp_path: Path
) -> None:
    assert (job.steps_per_epoch, job.total_steps) == (3, 6)
    seen: list[tuple[int, int]] = []
    whole = replace(job, folder=str(tmp_path / "whole"))
    fit(whole, report=lambda cursor: seen.append((cursor.step, torch.get_num_threads())))
    assert seen == [(1, 1), (2, 1), (3, 2), (4, 2), (5, 2), (6, 2)]
    expected = load_best(whole).state_dict()

    for last in (2, 3):
        stop, again = tmp_path / "stop", replace(job, folder=str(tmp_path / f"stopped-at-{last}"))

        def report(cursor: Any, stop: Path = stop, before: int = last - 1) -> None:
            if cursor.step == before:
                stop.touch()

        with pytest.raises(Interrupted, match=f"stopped at step {last} of 6"):
            fit(replace(again, stop_file=str(stop)), report=report)
        stop.unlink()
        torch.set_num_threads(4)
        del seen[:]
        fit(again, report=lambda cursor: seen.append((cursor.step, torch.get_num_threads())))
        assert seen == [(step, 1 if step < 3 else 2) for step in range(last + 1, 7)]
        found = load_best(again).state_dict()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_the_driver_counts_operations_and_the_teachers_cpus(job: Job, tmp_path: Path) -> None:
    """Two teachers of half a CPU each, next to a rank of one."""
    shape = {"layers": 2, "hidden": 512, "heads": 8, "ffn": 2048}
    raw = language_experiment(tmp_path, student=shape, cluster={"num_cpus": 2})
    for teacher in raw["teachers"]:
        teacher["num_cpus"] = 0.5
    plan = check(parse(raw))
    experiment = plan.experiment
    teacher_setup = job.teacher_setup
    assert teacher_setup is not None
    served = tuple(
        replace(spec, serving=own)
        for spec, own in zip(teacher_setup.teachers, experiment.teachers, strict=True)
    )
    own_model: Any = job.model
    large = replace(
        job,
        folder=str(tmp_path / "fit"),
        model=replace(own_model, student=experiment.student),
        trainer=experiment.trainer,
        teacher_setup=replace(teacher_setup, teachers=served),
    )
    blocks: Any = plan.rows
    tokens = blocks.lengths(plan.rows.rows("train")).mean()
    # Of each layer attention and three products with the feed-forward's width; and the output.
    weights = 2 * (4 * 512**2 + 3 * 512 * 2048)
    assert operations_of_rank(plan, large) == pytest.approx(6 * weights * tokens * 8, rel=0.01)

    def number(**changes: Any) -> int | str | None:
        d: Any = SimpleNamespace(plan=plan, experiment=experiment.model_copy(update=changes))
        fit_folder = str(tmp_path / f"fit-{len(changes)}")
        return with_threads(d, replace(large, folder=fit_folder)).trainer.num_threads_cached

    assert number() == usable_cpus(2)
    on_cluster = experiment.cluster.model_copy(update={"address": "head:6379"})
    assert number(cluster=on_cluster) == 1


def test_waiting_threads_spin_shortly_unless_the_user_decides() -> None:
    assert own_environment({})["GOMP_SPINCOUNT"] == "2000"
    assert "GOMP_SPINCOUNT" not in own_environment({"GOMP_SPINCOUNT": "7"})
    assert "GOMP_SPINCOUNT" not in own_environment({"OMP_WAIT_POLICY": "active"})
    assert own_environment({"OMP_WAIT_POLICY": "active"})["UCX_NET_DEVICES"] == "lo"
