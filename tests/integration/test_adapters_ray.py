"""Adapters on one base as Ray actors: one process for all, and a lost one changes nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distill.config import Serving, Stream, parse
from distill.driver import pipeline
from distill.errors import ModelError
from distill.report.progress import Progress
from distill.teachers.backends import open_backends
from distill.teachers.client import TeacherClient
from distill.teachers.local import LocalTeachers
from distill.teachers.requests import HeadRequest
from tests.toys_adapters import write_adapter
from tests.toys_language import DOMAINS, NUM_TOKENS, language_experiment, write_llama
from tests.toys_moe import DENSE, request

pytestmark = pytest.mark.slow

STEPS = 6


def answers(client: TeacherClient, before_step: Callable[[int], None]) -> list[np.ndarray]:
    """Of both adapters, asked in turn about other rows at each step."""
    found = []
    for number in range(STEPS):
        before_step(number)
        asked = request(rows_B=np.arange(3) + 3 * number, num_rows=3, num_tokens=8 + number)
        found += [client.call(name, asked).payload for name in DOMAINS]
    return found


def test_one_actor_has_both_and_a_killed_replica_changes_nothing(
    ray_cluster: None, tmp_path: Path
) -> None:
    from distill.teachers.replica_pool import RayTeacherPool
    from distill.teachers.served import ServedTeacher

    base = write_llama(tmp_path / "base")
    serving = Serving(replicas=2, num_cpus=0.1, wire=DENSE)
    specs = [
        ServedTeacher(
            name,
            str(base),
            serving,
            NUM_TOKENS,
            backend="language_model",
            adapter=str(write_adapter(tmp_path / name, base, seed)),
        )
        for seed, name in enumerate(DOMAINS)
    ]
    torch.set_num_threads(1)  # as an actor has
    expected = answers(LocalTeachers(open_backends(specs)), lambda number: None)
    with RayTeacherPool(specs) as pool:
        assert pool.names == DOMAINS
        first, second = (pool.pids(name) for name in DOMAINS)
        assert first == second and len(set(first)) == 2, "two replicas, each with both"
        client = pool.client(Stream(deadline_s=1500))

        def kill(number: int) -> None:
            if number == 1:
                os.kill(first[0], signal.SIGKILL)

        found = answers(client, kill)
        heads = [client.call(name, HeadRequest()).weight_VH for name in DOMAINS]
        stats = client.stats()
    assert all(map(np.array_equal, found, expected))
    assert torch.equal(*heads)
    assert all(stats[f"teacher.{name}.requests"] >= STEPS for name in DOMAINS)


def test_an_adapter_that_does_not_load_is_an_error_of_its_own(
    ray_cluster: None, tmp_path: Path
) -> None:
    """It was there at the check, and is broken now."""
    from distill.teachers.replica_pool import RayTeacherPool
    from distill.teachers.served import ServedTeacher

    base = write_llama(tmp_path / "base")
    folders = [write_adapter(tmp_path / name, base, seed) for seed, name in enumerate(DOMAINS)]
    weights = folders[1] / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    serving = Serving(num_cpus=0.1)
    specs: list[Any] = [
        ServedTeacher(
            folder.name,
            str(base),
            serving,
            NUM_TOKENS,
            backend="language_model",
            adapter=str(folder),
        )
        for folder in folders
    ]
    with pytest.raises(ModelError, match="truncated"):
        RayTeacherPool(specs)


def test_experts_are_tuned_and_served_as_adapters(ray_cluster: None, tmp_path: Path) -> None:
    raw = language_experiment(tmp_path)
    del raw["teachers"]
    raw["experts"] = {
        "base": str(tmp_path / "films"),
        "lora": {"rank": 4},
        "epochs": 2,
        "batch_size": 4,
        "optimizer": {"lr": 1e-2},
        "serving": {"num_cpus": 0.1, "wire": {"type": "hidden"}},
    }
    raw["trainer"] |= {"engine": "torch", "epochs": 1}
    with Progress() as progress:
        outcome = pipeline.train(parse(raw), progress)
    rows = {row.name: row for row in outcome.rows}
    sizes = [rows[name].params or 0 for name in DOMAINS]
    mixed = rows["oracle ensemble"].params or 0
    base = 2 * max(sizes) - mixed  # the base once, and the updates of both
    assert base < sizes[0] == sizes[1] < mixed < 2 * base
    for name in DOMAINS:
        kept = tmp_path / "run" / "experts" / name
        assert (kept / "adapter" / "adapter_model.safetensors").is_file()
        assert not (kept / "model").exists()
        away = next(other for other in DOMAINS if other != name)
        assert rows[name].per_domain[name] < rows[name].per_domain[away]
