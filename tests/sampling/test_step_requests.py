"""What a step's drafts are verified with: its K, its seeds, and the teacher's decoding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from distill.config.sampling import Decoding
from distill.data.batches import Batches
from distill.sampling.draw import TEACHER, row_seeds, uniforms
from distill.sampling.generation import write
from distill.sampling.records import DraftRequest
from distill.sampling.rows import rows_of
from distill.teachers.local import LocalTeachers
from distill.training.engines import make_engine
from distill.training.fit import build_module, open_source
from distill.training.job import Job
from tests.sampling.test_fits import batch_texts, sampled_job
from tests.toys_language import NUM_TOKENS


class Noted(LocalTeachers):
    """Teachers that keep what they are sent for verification."""

    def __init__(self, engines: dict[str, Any]) -> None:
        super().__init__(engines)
        self.requests: list[DraftRequest] = []

    def call(self, teacher: str, request: Any, *args: Any) -> Any:
        if isinstance(request, DraftRequest):
            self.requests.append(request)
        return super().call(teacher, request, *args)


def opened(job: Job) -> tuple[Any, Any, Batches, Noted]:
    assert job.teacher_setup is not None
    client = Noted(dict(job.teacher_setup.client.backends))  # type: ignore[attr-defined]
    job = replace(job, teacher_setup=replace(job.teacher_setup, client=client))
    assert job.teacher_setup is not None
    engine = make_engine(build_module(job), job.optimizer, job.trainer, 1)
    source = open_source(job, job.teacher_setup, engine, "rank0")
    return engine, source, Batches(job.data.open(), job.train_rows, 8, job.seed), client


def test_each_step_verifies_with_its_own_k_and_seeds(tmp_path: Path) -> None:
    sampling = {
        "type": "skd",
        "teacher": "films",
        "drafts": 3,
        "top_k": 13,
        "top_k_end": 3,
        "decoding": {"temperature": 0.6, "top_p": 0.8},
        "teacher_decoding": {"temperature": 0.3, "top_p": 0.7},
    }
    job = replace(sampled_job(tmp_path, "run", sampling), num_steps=6, seed=5)
    _, source, batches, client = opened(job)
    for _ in source.feed(batches, 0, 6):
        pass
    source.close()
    by_step = {step: [r for r in client.requests if r.step == step] for step in range(6)}
    assert [by_step[step][0].top_k for step in range(6)] == [13, 11, 9, 7, 5, 3]
    for step, requests in by_step.items():
        assert len({request.top_k for request in requests}) == 1
        rows = list(rows_of(batches.at(step)[0]))
        seeds_B = row_seeds(5, step, np.array(rows))
        for request in requests:
            assert request.decoding == Decoding(temperature=0.3, top_p=0.7)
            assert request.nucleus is None
        first = requests[0]
        expected_B = uniforms(seeds_B, np.zeros(len(rows), np.int64), TEACHER)
        assert first.uniform_b.tolist() == expected_B.tolist()
        assert [prompt.tolist() for prompt in first.prompts] == [
            row.prompt for row in rows_of(batches.at(step)[0]).values()
        ]


def test_text_of_a_step_is_drawn_with_its_settings_and_its_own_numbers(tmp_path: Path) -> None:
    """The weights stay: the same rows read otherwise in another epoch."""
    decoding = {"temperature": 0.6, "top_p": 0.8}
    job = sampled_job(tmp_path, "run", {"type": "on_policy", "decoding": decoding})
    job = replace(job, train_rows=job.train_rows[:8], seed=5)
    engine, source, batches, _ = opened(job)
    texts = []
    for step in source.feed(batches, 0, 2):
        (rows, found) = batch_texts(step.parts[0][0])
        prompts = [row.prompt for row in rows_of(batches.at(step.step)[0]).values()]
        expected = write(
            engine.module.student,
            NUM_TOKENS,
            prompts,
            [24 - len(prompt) for prompt in prompts],
            (0,),
            row_seeds(5, step.step, np.array(rows)),
            Decoding(**decoding),
        )
        assert found == expected.texts
        texts.append(dict(zip(rows, found, strict=True)))
    source.close()
    assert texts[0].keys() == texts[1].keys()
    assert sum(texts[0][row] != texts[1][row] for row in texts[0]) >= 6
