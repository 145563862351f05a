"""Text that is written while training, and a teacher that is away meanwhile."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from distill.cluster.group import AWAY, REFUSED, run_rank
from distill.config.moe import StudentAwareRouter
from distill.errors import Interrupted, TeacherAway
from distill.training.fit import fit, is_done
from distill.training.job import Job
from tests.sampling.test_fits import SKD, sampled_job, weights_after
from tests.teachers.teacher_stand_ins import Leaving
from tests.toys_language import write_tokenizer
from tests.toys_moe import mixture

SHORT = {"epochs": 0.15, "batch_size": 8}
CASES = {
    "verification": (SKD, "DraftRequest", 25),
    "stale text": ({"type": "on_policy", "staleness": 2}, "TeacherRequest", 5),
    "text of a teacher": ({"type": "teacher", "teacher": "films"}, "GenerationRequest", 2),
    "gates": ({"type": "on_policy"}, "GateRequest", 4),
    "answers after gates": ({"type": "on_policy"}, "TeacherRequest", 3),
}


def job_of_case(case: str, root: Path, folder: str) -> Job:
    sampling, _, _ = CASES[case]
    if "gates" not in case:
        return sampled_job(root, folder, sampling, trainer=SHORT)
    teachers = []
    for seed, name in enumerate(("films", "meals")):
        if not (root / name).exists():
            mixture("qwen2", seed=seed).save_pretrained(root / name)
            write_tokenizer(root / name)
        teachers.append({"name": name, "path": str(root / name), "num_cpus": 0.1})
    wire = {"type": "dense", "dtype": "float32"}
    changes: dict[str, Any] = {
        "teachers": teachers,
        "aggregation": {"type": "mean"},
        "trainer": SHORT,
    }
    job = sampled_job(root, folder, sampling, wire, **changes)
    assert job.teacher_setup is not None
    served = [
        replace(
            spec,
            serving=spec.serving.model_copy(update={"moe": StudentAwareRouter(lr=1e-2, balance=0)}),
        )
        for spec in job.teacher_setup.teachers
    ]
    return replace(job, teacher_setup=replace(job.teacher_setup, teachers=tuple(served)))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Tensor]]:
    """Of a case, the weights where no teacher leaves: of each kind of fit computed once."""
    mktemp = tmp_path_factory.mktemp
    weights_of = functools.cache(
        lambda case: weights_after(job_of_case(case, mktemp("undisturbed"), "whole"))
    )
    return lambda case: weights_of("gates" if "gates" in case else case)


def leaving(job: Job, case: str, **how: Any) -> Job:
    _, method, at = CASES[case]
    return served_by_leaving(job, method, at, **how)


def served_by_leaving(job: Job, method: str, at: int, **how: Any) -> Job:
    assert job.teacher_setup is not None
    client: Any = job.teacher_setup.client
    return replace(
        job,
        teacher_setup=replace(
            job.teacher_setup, client=Leaving(dict(client.backends), method, at, **how)
        ),
    )


def checkpoints(job: Job) -> list[int]:
    folders = (Path(job.folder) / "checkpoints").glob("step-*")
    return sorted(int(folder.name.removeprefix("step-")) for folder in folders)


def test_a_wait_for_a_verification_changes_no_weight(
    undisturbed: Callable[[str], dict[str, Tensor]], tmp_path: Path
) -> None:
    expected = undisturbed("verification")
    waiting = job_of_case("verification", tmp_path, "waiting")
    weights = weights_after(leaving(waiting, "verification"))
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())
    first, last = checkpoints(waiting)  # that of the outage, and the end
    assert 0 < first < last == waiting.total_steps


@pytest.mark.parametrize("case", CASES)
def test_weights_after_a_stop_and_a_resume_are_those_of_an_undisturbed_fit(
    case: str, undisturbed: Callable[[str], dict[str, Tensor]], tmp_path: Path
) -> None:
    expected = undisturbed(case)
    stopped = job_of_case(case, tmp_path, "stopped")
    with pytest.raises(TeacherAway, match="was away for 1800 s"):
        fit(leaving(stopped, case, returns=False, looks=0))
    (step,) = checkpoints(stopped)
    assert 0 < step < stopped.total_steps
    resumed = weights_after(stopped)
    assert all(torch.equal(resumed[name], tensor) for name, tensor in expected.items())


def test_a_rank_whose_teacher_stays_away_is_not_refused(tmp_path: Path) -> None:
    job = sampled_job(tmp_path, "run", SKD)
    folder = Path(job.folder)
    run_rank(served_by_leaving(job, "DraftRequest", 5, returns=False), 0, 1, lambda cursor: None)
    assert not is_done(job) and not (folder / REFUSED).exists()
    assert (folder / AWAY).read_text() == "teacher 'films' was away for 1800 s"
    run_rank(job, 0, 1, lambda cursor: None)  # a restart of the group, with the teacher back
    assert is_done(job) and not (folder / AWAY).exists()


def test_a_teacher_that_is_away_before_the_first_step_is_named_and_stops_the_fit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job = sampled_job(tmp_path, "run", {"type": "dataset"})
    with pytest.raises(Interrupted, match="was away"):
        fit(served_by_leaving(job, "HeadRequest", 1, looks=1, returns=False))
    assert "a teacher is away: HeadRequest; waiting for it" in caplog.messages
