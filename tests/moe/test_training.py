"""Gates that learn from what the student writes, through the one loop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from distill.data.batches import Batches
from distill.errors import Interrupted
from distill.sampling import Mixed
from distill.teachers.local import LocalTeachers
from distill.teachers.requests import GateRequest
from distill.training.fit import fit, load_best
from distill.training.job import Job
from tests.moe.test_fit import AS_OWN, DENSE, teachers
from tests.sampling.test_fits import logged, sampled_job

LEARNS = {"type": "sar", "lr": 0.01}


def job_of(root: Path, folder: str, moe: dict[str, Any]) -> Job:
    changes: dict[str, Any] = {
        "teachers": teachers(root, moe),
        "aggregation": {"type": "mean", "mix": "divergences"},
        "objective": {"type": "reverse_kl"},
    }
    return sampled_job(root, folder, {"type": "on_policy"}, wire=DENSE, **changes)


def weights_after(job: Job) -> dict[str, torch.Tensor]:
    fit(job)
    return load_best(job).student.state_dict()


def are_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], tensor) for name, tensor in other.items())


def test_one_unexplored_pass_of_the_models_own_experts_is_on_policy_distillation(
    tmp_path: Path,
) -> None:
    gkd = weights_after(job_of(tmp_path, "gkd", {"type": "own"}))
    assert are_equal(weights_after(job_of(tmp_path, "ka", AS_OWN)), gkd)
    explored = AS_OWN | {"explore": 1.0}
    assert not are_equal(weights_after(job_of(tmp_path, "explored", explored)), gkd)


def test_frozen_gates_are_all_experts_and_gates_that_learn_are_not(tmp_path: Path) -> None:
    all_teachers = weights_after(job_of(tmp_path, "all", {"type": "all"}))
    assert are_equal(weights_after(job_of(tmp_path, "frozen", LEARNS | {"lr": 0})), all_teachers)
    learnt_job = job_of(tmp_path, "learnt", LEARNS)
    assert not are_equal(weights_after(learnt_job), all_teachers)
    text = logged(learnt_job)
    assert [row["teacher.t0.gate_version_rate"] for row in text] == list(range(1, len(text) + 1))
    assert all(row["teacher.t0.gate_kl_rate"] > 0 for row in text)


def test_gates_learn_at_the_students_temperature_from_its_own_text_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[GateRequest] = []
    call = LocalTeachers.call

    def recorded(client: LocalTeachers, teacher: str, request: Any, *args: Any) -> Any:
        if isinstance(request, GateRequest):
            asked.append(request)
        return call(client, teacher, request, *args)

    monkeypatch.setattr(LocalTeachers, "call", recorded)
    job = job_of(tmp_path, "warm", LEARNS)
    assert job.kd is not None
    kd = job.kd.model_copy(update={"temperature": 2.0})
    fit(replace(job, kd=kd, num_steps=3))
    assert [request.temperature for request in asked] == [2.0] * 3
    assert len({request.request.seed for request in asked}) == 3

    asked.clear()
    mixed = Mixed(student_share=0.0)
    fit(replace(job, folder=f"{job.folder}-mixed", sampling=mixed, num_steps=3))
    assert not asked


def test_what_is_drawn_depends_on_the_seed(tmp_path: Path) -> None:
    explored = AS_OWN | {"explore": 1.0}
    job = job_of(tmp_path, "one", explored)
    assert job.teacher_setup is not None
    part = Batches(job.data.open(), job.train_rows, 8, seed=0).at(0)[0]
    seeds = []
    for seed in (0, 1):
        stream = job.teacher_setup.open(job.data, "rank0", steps_ahead=0, seed=seed)
        seeds += [stream.request("t0", "1", part, part.rows_B, step).seed for step in (0, 1)]
        stream.close()
    assert len(set(seeds)) == 4


def test_gates_go_on_bit_for_bit_after_a_stop(tmp_path: Path) -> None:
    whole = weights_after(job_of(tmp_path, "whole", LEARNS))
    stop = tmp_path / "stop"
    job = job_of(tmp_path, "stopped", LEARNS)
    with pytest.raises(Interrupted, match="stopped at step 3 of"):
        fit(replace(job, stop_file=str(stop)), report=lambda cursor: stop.touch())
    # Other teachers, which have never heard of the gates of the first three steps.
    again = replace(job_of(tmp_path, "again", LEARNS), folder=job.folder)
    assert are_equal(weights_after(again), whole)
