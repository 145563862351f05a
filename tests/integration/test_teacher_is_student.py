"""A teacher that is the student, on real Ray actors: every exact float32 wire brings KL 0."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distill.config import Stream
from distill.training.job import Job
from tests.training.test_student_is_teacher import (
    WIRES,
    job_in,
    kl_at_the_start,
    of_wire,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    """One pool with a teacher for each wire, all of the same folder."""
    from distill.teachers.replica_pool import RayTeacherPool

    job = job_in(tmp_path_factory.mktemp("served"))
    assert job.teacher_setup is not None
    with RayTeacherPool(job.teacher_setup.teachers) as pool:
        teacher_setup: Any = replace(job.teacher_setup, client=pool.client(Stream(deadline_s=120)))
        yield replace(job, teacher_setup=teacher_setup)


@pytest.mark.parametrize("name", list(WIRES))
def test_the_divergence_is_zero_through_every_wire(served: Job, name: str) -> None:
    assert abs(kl_at_the_start(of_wire(served, name))) <= 1e-6


def test_the_pool_serves_what_a_cache_keeps(served: Job, tmp_path: Path) -> None:
    """A second asking is answered from files: the same bits."""
    for name in list(WIRES):
        job = of_wire(served, name, tmp_path)
        assert kl_at_the_start(job, with_cache=True) == kl_at_the_start(job, with_cache=True)
