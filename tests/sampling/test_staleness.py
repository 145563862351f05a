"""Text that is written some updates before it is trained on."""

from __future__ import annotations

import copy
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distill.config import parse
from distill.data.batches import Batches
from distill.driver.checks.check import check
from distill.errors import ConfigError, Interrupted
from distill.records import Batch, ScheduleValues
from distill.sampling import Decoding
from distill.sampling.draw import row_seeds
from distill.sampling.generation import write
from distill.sampling.rows import rows_of
from distill.teachers.local import LocalTeachers
from distill.teachers.requests import TeacherRequest
from distill.training.engines import make_engine
from distill.training.fit import build_module, fit, open_source
from distill.training.job import Job
from distill.training.loop import Engine
from tests.driver.checks.test_check_sampling import experiment_of, lines_of
from tests.moe.test_fit import DENSE, teachers
from tests.sampling.test_fits import SKD, batch_texts, logged, sampled_job, weights_after
from tests.toys_language import NUM_TOKENS

ON_POLICY = {"type": "on_policy"}


def opened(job: Job, num_rows: int = 20) -> tuple[Engine, Any, Batches]:
    """Three steps an epoch."""
    assert job.teacher_setup is not None
    engine = make_engine(build_module(job), job.optimizer, job.trainer, 1)
    batches = Batches(job.data.open(), job.train_rows[:num_rows], 8, job.seed)
    return engine, open_source(job, job.teacher_setup, engine, "rank0"), batches


def train_on(engine: Engine, step: Any) -> None:
    for batch, answers in step.parts:
        engine.backward(engine.forward(batch, answers, ScheduleValues(1.0, 1.0)).loss)
    engine.step(lr=1e-2)


@pytest.mark.parametrize("staleness", [0, 1, 2, 9])
def test_text_is_written_by_the_weights_of_so_many_updates_ago(
    tmp_path: Path, staleness: int
) -> None:
    """Over three epochs of the same rows, which stand in several steps that are under way."""
    job = sampled_job(tmp_path, "run", ON_POLICY | {"staleness": staleness})
    engine, source, batches = opened(job)
    students, texts, ages = [], [], []
    for step in source.feed(batches, 0, 8):
        students.append(copy.deepcopy(engine.module.student).eval())
        texts.append(dict([batch_texts(step.parts[0][0])]))
        train_on(engine, step)
        ages.append(source.timings()["sampling.staleness"])
    source.close()
    assert ages == [min(step, staleness) for step in range(8)]
    num_others = 0
    for step in range(8):
        (batch,) = batches.at(step)
        author = max(0, step - staleness)
        assert texts[step] == written_by(students[author], batch, step)
        num_others += texts[step] != written_by(students[step], batch, step)
    assert (num_others > 0) == (staleness > 0)


def written_by(student: Any, batch: Batch, step: int) -> dict[tuple[int, ...], list[list[int]]]:
    rows = rows_of(batch)
    prompts = [row.prompt for row in rows.values()]
    limits = [24 - len(prompt) for prompt in prompts]
    seeds_B = row_seeds(0, step, np.array(list(rows)))
    found = write(student, NUM_TOKENS, prompts, limits, (0,), seeds_B, Decoding())
    return {tuple(rows): found.texts}


@pytest.mark.parametrize("sampling", [ON_POLICY, SKD])
def test_a_student_that_does_not_move_may_be_as_stale_as_one_likes(
    tmp_path: Path, sampling: dict[str, Any]
) -> None:
    text = []
    for staleness in (0, 3):
        job = sampled_job(tmp_path, f"run-{staleness}", sampling | {"staleness": staleness})
        job = replace(job, optimizer=job.optimizer.model_copy(update={"lr": 0.0}), num_steps=6)
        fit(job)
        text.append([(row["loss"], row["sampling.staleness"]) for row in logged(job)])
    fresh, stale = text
    assert [loss for loss, _ in fresh] == [loss for loss, _ in stale]
    assert [age for _, age in fresh] == [0] * 6 and [age for _, age in stale] == [0, 1, 2, 3, 3, 3]


@pytest.mark.parametrize(
    "sampling",
    [ON_POLICY, SKD, {"type": "mixed", "student_share": 0.9}],
    ids=lambda one: one["type"],
)
def test_a_fit_stopped_with_text_under_way_goes_on_bit_for_bit(
    tmp_path: Path, sampling: dict[str, Any]
) -> None:
    sampling = sampling | {"staleness": 2}
    whole_job = replace(sampled_job(tmp_path, "whole", sampling), num_steps=7)
    whole = weights_after(whole_job)
    stop = tmp_path / "stop"
    job = replace(sampled_job(tmp_path, "stopped", sampling), num_steps=7)
    with pytest.raises(Interrupted, match="stopped at step 3 of"):
        fit(replace(job, stop_file=str(stop)), report=lambda cursor: stop.touch())
    checkpoint = Path(job.folder) / "checkpoints/step-00000003"
    under_way = torch.load(checkpoint / "beside-0.pt", weights_only=True)["ahead"]
    assert list(under_way) == [3, 4] and all(len(texts) == 8 for texts in under_way.values())
    resumed = weights_after(job)
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())
    losses = [[row["loss"] for row in logged(one)] for one in (whole_job, job)]
    assert losses[0] == losses[1] and len(losses[0]) == 7


def test_other_ranks_go_on_with_the_text_of_those_that_wrote_it(tmp_path: Path) -> None:
    """Two ranks' text, on one."""
    job = sampled_job(tmp_path, "run", ON_POLICY | {"staleness": 1})
    _, source, batches = opened(job)
    rows = rows_of(batches.at(4)[0])
    texts = {row: [2 + place, 0] for place, row in enumerate(rows)}
    shares = [dict(list(texts.items())[:5]), dict(list(texts.items())[5:])]
    source.load_state_dicts([{"ahead": {4: share}, "gates": {}} for share in shares])
    ((batch, _),) = next(source.feed(batches, 4, 6)).parts
    source.close()
    assert batch_texts(batch) == (tuple(rows), list(texts.values()))
    assert batch.num_valid == 2 * len(rows)
    assert list(source.state_dict()["ahead"]) == [5]


class Watched(LocalTeachers):
    """Teachers that tell when they are asked about a step."""

    def __init__(self, engines: dict[str, Any], num_steps: int) -> None:
        super().__init__(engines)
        self.asked_about = [threading.Event() for _ in range(num_steps)]

    def call(self, teacher: str, request: Any, *args: Any) -> Any:
        if isinstance(request, TeacherRequest):
            self.asked_about[int(request.request_id.split("/")[1])].set()
        return super().call(teacher, request, *args)


def test_teachers_are_asked_before_the_steps_between_are_trained(tmp_path: Path) -> None:
    job = sampled_job(tmp_path, "run", ON_POLICY | {"staleness": 2})
    assert job.teacher_setup is not None
    client = Watched(dict(job.teacher_setup.client.backends), 8)  # type: ignore[attr-defined]
    job = replace(job, teacher_setup=replace(job.teacher_setup, client=client))
    engine, source, batches = opened(job)
    for step in source.feed(batches, 0, 8):
        # Before the training of this step, which would otherwise wait for ever.
        for later in range(step.step, min(step.step + 3, 8)):
            assert client.asked_about[later].wait(timeout=600), (step.step, later)
        assert not any(event.is_set() for event in client.asked_about[step.step + 3 :])
        train_on(engine, step)
    source.close()


def test_the_plan_tells_what_staleness_means(tmp_path: Path) -> None:
    text = lines_of(experiment_of(tmp_path, SKD | {"staleness": 2}))
    assert text["staleness"][0] == "generated 2 steps ahead"
    assert "while the student trains on the steps in between" in text["staleness"][1]
    assert "staleness" not in lines_of(experiment_of(tmp_path, SKD))


def test_gates_that_learn_from_each_steps_text_are_refused(tmp_path: Path) -> None:
    raw = experiment_of(
        tmp_path,
        ON_POLICY | {"staleness": 1},
        teachers=[t | {"wire": DENSE} for t in teachers(tmp_path, {"type": "sar"})],
        aggregation={"type": "mean", "mix": "divergences"},
        objective={"type": "reverse_kl"},
    )
    with pytest.raises(ConfigError, match=r"t0\.moe\.type sar .* set sampling\.staleness: 0"):
        check(parse(raw))


def test_negative_staleness_and_stale_text_of_a_teacher_are_refused(tmp_path: Path) -> None:
    for sampling in (ON_POLICY | {"staleness": -1}, {"type": "teacher", "staleness": 1}):
        with pytest.raises(ConfigError, match=r"sampling\.(\w+\.)?staleness"):
            parse(experiment_of(tmp_path, sampling))
