"""Students of adapters on one base are those of the same adapters, each served alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from distill.teachers.local import LocalTeachers
from distill.training.job import Job
from tests.sampling.test_fits import SKD, sampled_job, weights_after
from tests.toys_adapters import alone, write_adapter
from tests.toys_language import DOMAINS, language_experiment
from tests.toys_teachers import backend_of


def job_of_adapters(root: Path, folder: str, sampling: dict[str, Any], **changes: Any) -> Job:
    """Two teachers on one base, one a domain, one engine each over one copy."""
    language_experiment(root)
    for seed, name in enumerate(DOMAINS):
        if not (root / f"on-{name}").exists():
            write_adapter(root / f"on-{name}", root / "films", seed)
    base = str(root / "films")
    teachers = [
        {"name": name, "path": base, "adapter": str(root / f"on-{name}"), "num_cpus": 0.1}
        for name in DOMAINS
    ]
    return sampled_job(root, folder, sampling, teachers=teachers, **changes)


@pytest.mark.parametrize("sampling", [SKD, {"type": "on_policy"}], ids=["skd", "on_policy"])
def test_a_student_is_the_same_to_the_bit(tmp_path: Path, sampling: dict[str, Any]) -> None:
    job = job_of_adapters(tmp_path, "together", sampling)
    together = weights_after(job)
    apart = job_of_adapters(tmp_path, "apart", sampling)
    assert apart.teacher_setup is not None
    engines = {}
    for teacher in apart.teacher_setup.teachers:
        assert teacher.adapter is not None
        engines[teacher.name] = backend_of(
            alone(Path(teacher.folder), Path(teacher.adapter)),
            num_labels=teacher.width,
            wire=teacher.serving.wire,
            is_language_model=True,
        )
    apart = replace(
        apart, teacher_setup=replace(apart.teacher_setup, client=LocalTeachers(engines))
    )
    expected = weights_after(apart)
    assert all(torch.equal(together[name], tensor) for name, tensor in expected.items())


def test_a_student_holds_the_head_of_a_base_once(tmp_path: Path) -> None:
    """And those of teachers that are models of their own, each."""
    job = job_of_adapters(tmp_path, "run", SKD, wire={"type": "hidden"})
    assert job.teacher_setup is not None
    with job.teacher_setup.open(job.data, "rank0") as stream:
        shared = stream.heads()
    assert shared["films"] is shared["meals"]
    other = sampled_job(tmp_path, "apart", SKD, {"type": "hidden"})
    assert other.teacher_setup is not None
    with other.teacher_setup.open(other.data, "rank0") as stream:
        apart = stream.heads()
    assert not apart["films"].equals(apart["meals"])
    assert apart["films"].equals(shared["films"]), "an adapter leaves it as it is"
