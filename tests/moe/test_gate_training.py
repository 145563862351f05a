"""The gates' steps through the teachers' stream, on what a real student would say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from distill.config.moe import StudentAwareRouter
from distill.data.batches import Batches
from distill.errors import CheckpointError
from distill.models.decoder import head_of
from distill.records import Batch, TokenAnswers
from distill.teachers.requests import GateStateRequest
from distill.teachers.stream import TeacherStream
from distill.training.fit import build_module
from distill.training.gate_training import GateTraining
from distill.training.job import Job
from distill.training.sampled_targets import SampledTargets
from tests.toys_language import write_tokenizer
from tests.toys_moe import mixture
from tests.training.test_language_fit import job_of

DENSE = {"type": "dense", "dtype": "float32"}
SAR = StudentAwareRouter(lr=1e-2, balance=0)


class Student:
    """A job's rows, its student, and a stream to a teacher whose gates learn."""

    def __init__(self, root: Path, moe: StudentAwareRouter = SAR) -> None:
        if not (root / "mixture").exists():
            mixture("qwen2").save_pretrained(root / "mixture")
            write_tokenizer(root / "mixture")
        teacher = {"name": "t", "path": str(root / "mixture"), "num_cpus": 0.1}
        changes: dict[str, Any] = {"teachers": [teacher], "aggregation": {"type": "mean"}}
        folder = f"run-{len(list(root.glob('run-*')))}"
        self.job: Job = job_of(root, folder, DENSE, **changes)
        self.moe = moe
        assert self.job.teacher_setup is not None
        (spec,) = self.job.teacher_setup.teachers
        serving = spec.serving.model_copy(update={"moe": moe})
        teacher_setup = replace(self.job.teacher_setup, teachers=(replace(spec, serving=serving),))
        self.client = teacher_setup.client
        self.stream: TeacherStream = teacher_setup.open(self.job.data, "test")
        self.module: Any = build_module(self.job).eval()

    def training(self) -> GateTraining:
        return GateTraining("t", self.moe, self.client, self.stream, lambda sums: sums)

    def batches(self, micro_batch_size: int = 8) -> Batches:
        rows = self.job.train_rows[:8]
        return Batches(self.job.data.open(), rows, 8, 0, micro_batch_size=micro_batch_size)

    @torch.no_grad()
    def logits_of(self, batch: Batch) -> Tensor:
        hidden_PH, _ = self.module.positions(batch)
        head: Any = head_of(self.module.student)
        return head(hidden_PH)[:, : self.module.num_tokens]

    def answers(self) -> np.ndarray:
        (step,) = self.stream.feed(self.batches(), 0, 1)
        ((_, answers),) = step.parts
        assert isinstance(answers, TokenAnswers)
        return answers.payloads[0].numpy()


def test_micro_batches_make_the_step_of_the_whole_batch(tmp_path: Path) -> None:
    """Noise included: it belongs to a row and a place."""
    found = []
    for size in (8, 3):
        student = Student(tmp_path)
        state = student.training().step(
            student.batches(size).at(0), student.logits_of, step=3, temperature=2.0
        )
        found.append(state.values)
    start = student.client.call("t", GateStateRequest()).values
    assert np.abs(found[0] - start).max() > 5e-3
    # AdamW's first step is lr in the gradient's direction, which rounding decides where it is 0.
    np.testing.assert_allclose(found[1], found[0], atol=2e-4)


def test_the_teacher_answers_with_its_newest_gates_and_a_resumed_run_goes_on(
    tmp_path: Path,
) -> None:
    student = Student(tmp_path, replace_noise(SAR))
    training = student.training()
    before = student.answers()
    kls, text = [], dict[str, float]()
    for step in range(6):
        training.step(student.batches().at(0), student.logits_of, step, temperature=1.0)
        text = training.timings()
        kls.append(text["teacher.t.gate_kl_rate"])
    assert text["teacher.t.gate_version_rate"] == 6 and text["teacher.t.gate_balance_rate"] == 0
    assert kls[-1] < 0.99 * kls[0]
    after = student.answers()
    assert not np.allclose(before, after, atol=1e-3)
    other = Student(tmp_path, student.moe)
    resumed = other.training()
    assert np.array_equal(other.answers(), before)
    resumed.load_state_dict(training.state_dict())
    assert np.array_equal(other.answers(), after)
    states = [
        t.step(s.batches().at(0), s.logits_of, step=6, temperature=1.0)
        for t, s in ((training, student), (resumed, other))
    ]
    assert np.array_equal(states[0].values, states[1].values)


def replace_noise(moe: StudentAwareRouter) -> StudentAwareRouter:
    return moe.model_copy(update={"noise": False})


def test_a_rank_without_rows_takes_the_others_step(tmp_path: Path) -> None:
    """It has no request of its own, and reduces all the same."""
    first, second = Student(tmp_path), Student(tmp_path)
    sums: list[Tensor] = []

    def from_first(totals_G: Tensor) -> Tensor:
        sums.append(totals_G)
        return totals_G

    trained = GateTraining("t", SAR, first.client, first.stream, from_first)
    state = trained.step(first.batches().at(0), first.logits_of, step=0, temperature=1.0)
    parts = second.batches().at(0)
    empty = [replace(p, valid_B=torch.zeros_like(p.valid_B)) for p in parts]
    idle = GateTraining("t", SAR, second.client, second.stream, lambda mine: mine + sums[0])
    assert np.array_equal(
        idle.step(empty, second.logits_of, step=0, temperature=1.0).values, state.values
    )
    assert idle.timings() == pytest.approx(trained.timings())


def test_a_checkpoint_without_the_gates_is_refused() -> None:
    nobody: Any = None
    gate: Any = object()
    with pytest.raises(CheckpointError, match="older version; start again"):
        SampledTargets(nobody, nobody, nobody, nobody, [gate]).load_state_dicts([])
