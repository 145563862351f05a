"""A teacher that is the student: every exact float32 wire brings KL 0, in one process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from distill.aggregation import UniformMean
from distill.config import Cache, Serving
from distill.data.batches import Batches
from distill.objectives import ForwardKL
from distill.records import Batch, ScheduleValues, TokenAnswers
from distill.teachers.requests import HeadRequest
from distill.teachers.served import ServedTeacher
from distill.training.fit import build_module
from distill.training.job import Job
from distill.training.token_module import TokenModule
from distill.wires import DenseWire, HiddenWire, SampledWire, TopKWire, WireFormat
from tests.toys_language import NUM_TOKENS, language_experiment, llama, write_llama
from tests.toys_teachers import backend_of
from tests.training.test_language_fit import job_of

PADDED = NUM_TOKENS + 6
WIRES: dict[str, WireFormat] = {
    "dense": DenseWire(dtype="float32"),
    "hidden": HiddenWire(dtype="float32"),
}
"""Those that bring float32 logits back whole. ``topk`` keeps float16 of each, ``sampled`` draws."""


def job_in(root: Path, wires: dict[str, WireFormat] | None = None) -> Job:
    """A student that starts as its teachers, one for each wire."""
    wires = wires or WIRES
    language_experiment(root)
    folder = str(write_llama(root / "both", seed=3, vocab_size=PADDED))
    teachers = [{"name": name, "path": folder, "num_cpus": 0.1} for name in wires]
    mean = {"type": "mean"}
    job = job_of(root, teachers=teachers, student={"path": folder}, aggregation=mean)
    assert job.teacher_setup is not None
    specs = tuple(
        replace(
            teacher,
            serving=teacher.serving.model_copy(update={"wire": wires[teacher.name]}),
            key=replace(teacher.key, wire=wires[teacher.name].name),
        )
        for teacher in job.teacher_setup.teachers
    )
    return replace(job, teacher_setup=replace(job.teacher_setup, teachers=specs))


def of_wire(job: Job, name: str, cache: Path | None = None) -> Job:
    """With that wire's teacher alone."""
    assert job.teacher_setup is not None
    specs = tuple(t for t in job.teacher_setup.teachers if t.name == name)
    folder = str(cache) if cache else job.teacher_setup.cache_folder
    return replace(
        job, teacher_setup=replace(job.teacher_setup, teachers=specs, cache_folder=folder)
    )


def kl_at_the_start(job: Job, with_cache: bool = False) -> float:
    """The first step's mean divergence at temperature 1."""
    teacher_setup = job.teacher_setup
    assert teacher_setup is not None
    if not with_cache:
        teacher_setup = replace(teacher_setup, cache=Cache(type="none"))
    module: Any = build_module(job).train()
    rows: Any = job.data.open()
    batches = Batches(rows, rows.rows("train"), 4, seed=0)
    with teacher_setup.open(job.data, "test") as stream:
        module.take_heads(stream.heads(), "cpu")
        ((batch, answers),) = next(stream.feed(batches, 0, 1)).parts
    found = module(batch, answers, ScheduleValues(1.0, 1.0)).metrics["kd.loss"]
    return float(found.sum / found.count)


@pytest.mark.parametrize("name", list(WIRES))
def test_the_divergence_is_zero_through_every_exact_wire(tmp_path: Path, name: str) -> None:
    assert abs(kl_at_the_start(of_wire(job_in(tmp_path), name))) <= 1e-6


@pytest.mark.parametrize(
    ("wire", "largest"),
    [(TopKWire(k=PADDED), 2e-6), (TopKWire(k=8), 2e-6), (SampledWire(num_samples=4096), 0.02)],
    ids=["topk-all", "topk", "sampled"],
)
def test_what_the_others_add_is_rounding_and_chance(
    tmp_path: Path, wire: WireFormat, largest: float
) -> None:
    """float16 of z − z_max is off by 2⁻¹¹ of it, which a divergence feels as the square."""
    assert abs(kl_at_the_start(of_wire(job_in(tmp_path, {"t": wire}), "t"))) <= largest


def test_a_batch_of_one_row_without_anything_to_learn_teaches_nothing() -> None:
    """LMOps#38: the loss is finite, and every gradient is zero."""

    for wire in WIRES.values():
        served = ServedTeacher("t", "", Serving(wire=wire), NUM_TOKENS)
        module = TokenModule(llama(1), NUM_TOKENS, ForwardKL(), UniformMean(), [served]).train()
        ids_BT = torch.arange(6)[None]
        batch = Batch(
            rows_B=torch.arange(1).numpy(),
            labels_B=torch.tensor([-100]),
            domains_B=torch.tensor([-1]),
            valid_B=torch.tensor([True]),
            num_valid=0,
            num_labelled=0,
            input_ids_BT=ids_BT,
            position_ids_BT=ids_BT.clone(),
            targets_BT=torch.zeros(1, 6, dtype=torch.bool),
        )
        width = 32 if wire.takes == "hidden" else NUM_TOKENS
        answers = TokenAnswers((torch.empty(0, width),), torch.empty(1, 0, dtype=torch.bool))
        if wire.takes == "hidden":
            teacher = backend_of(llama(2), num_labels=NUM_TOKENS, wire=wire, is_language_model=True)
            module.take_heads({"t": teacher.call(HeadRequest())}, "cpu")
        for alpha in (0.0, 0.5, 1.0):
            module.zero_grad()
            output = module(batch, answers, ScheduleValues(2.0, alpha))
            output.loss.backward()
            assert float(output.loss.detach()) == 0
            assert all(p.grad is None or not p.grad.any() for p in module.parameters()), (
                "zero, and not NaN"
            )
