"""Gates that learn, through real Ray actors."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distill.config import Serving, Stream
from distill.config.moe import StudentAwareRouter
from distill.errors import TeacherError
from distill.moe.optimizer import GateOptimizer
from distill.teachers.client import TeacherClient
from distill.teachers.local import LocalTeachers
from distill.teachers.requests import GateRequest, GateStateRequest
from tests.toys_language import NUM_TOKENS, write_tokenizer
from tests.toys_moe import DENSE, engine, mixture, request

pytestmark = pytest.mark.slow

SAR = StudentAwareRouter(lr=1e-2)
STEPS = 4


def trained(client: TeacherClient, before_step: Any = lambda number: None) -> list[np.ndarray]:
    """The gates and the answers of some steps."""
    optimizer = GateOptimizer(client.call("t", GateStateRequest()), SAR)
    found = []
    for number in range(STEPS):
        before_step(number)
        asked = request(moe=SAR, gate=optimizer.state, seed=number)
        shape = (int(asked.counts_B.sum()), NUM_TOKENS)
        student_PV = np.random.default_rng(number).normal(size=shape).astype(np.float32)
        gradient = client.call("t", GateRequest(asked, student_PV))
        state = optimizer.step(gradient.values, gradient.num_positions)
        answer = client.call("t", request(moe=SAR, gate=state, seed=number))
        found += [state.values, answer.payload]
    return found


def test_a_killed_replica_changes_neither_gates_nor_answers(ray_cluster: None, tmp_path: Path):
    from distill.teachers.replica_pool import RayTeacherPool
    from distill.teachers.served import ServedTeacher

    mixture().save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    torch.set_num_threads(1)  # as an actor of one CPU has
    expected = trained(LocalTeachers({"t": engine(str(tmp_path), SAR)}))
    serving = Serving(num_cpus=0.1, wire=DENSE, moe=SAR)
    spec = ServedTeacher("t", str(tmp_path), serving, NUM_TOKENS, backend="language_model")
    with RayTeacherPool([spec]) as pool:
        client = pool.client(Stream(deadline_s=1500))

        def kill(number: int) -> None:
            if number == 1:  # its restart is waited for, and knows of no step before
                os.kill(pool.pids("t")[0], signal.SIGKILL)

        found = trained(client, kill)
        retries = client.stats()["teacher.t.retries"]
        with pytest.raises(TeacherError, match="a gate of another shape") as caught:
            other = engine(mixture("qwen2", own=2, num_layers=1), SAR).call(GateStateRequest())
            client.call("t", request(moe=SAR, gate=other))
        assert type(caught.value) is TeacherError
    assert all(map(np.array_equal, found, expected))
    assert retries >= 1
