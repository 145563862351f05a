"""Objectives of classifiers in the trained module: valid rows, labels, micro-batches.

Shape suffixes: B rows of a batch, N its valid rows, K teachers, V classes.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from distill.aggregation import FixedWeights
from distill.objectives import Decoupled, Objective
from distill.records import UNLABELLED, Batch, ScheduleValues, Target, TeacherAnswers
from distill.training.class_module import DistillModule
from tests.objective_references import SINGLE, weighted_sum
from tests.toys import NUM_CLASSES, ToyTeachers, tiny_bert, toy_batches

KNOBS = ScheduleValues(temperature=2.0, alpha=0.7)
OBJECTIVES = [
    *(objective for objective, _, _ in SINGLE.values() if objective.mixes),
    weighted_sum((1, "forward_kl"), (0.1, "cosine")),
]
by_type = pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: o.type)


@pytest.fixture(scope="module")
def parts() -> dict[int | None, list[tuple[Batch, TeacherAnswers]]]:
    """Twelve rows as one micro-batch and as three, with the answers of two teachers."""
    teachers = ToyTeachers([tiny_bert(8), tiny_bert(9)], all_teachers=True)
    return {
        size: next(iter(teachers.feed(toy_batches(micro=size), 0, 1))).parts for size in (None, 4)
    }


def module_of(objective: Objective) -> DistillModule:
    aggregation = FixedWeights(weights=(0.3, 0.7))
    student = tiny_bert(0)
    with torch.no_grad():
        student.classifier.weight.mul_(20)  # outputs that differ between rows
    return DistillModule(student, objective, aggregation, ("a", "b"), NUM_CLASSES)


def grads(module: DistillModule, batches: list[tuple[Batch, TeacherAnswers]]) -> list[Tensor]:
    module.zero_grad()
    for batch, answers in batches:
        module(batch, answers, KNOBS).loss.backward()
    return [p.grad.clone() for p in module.parameters() if p.grad is not None]


@by_type
def test_the_soft_term_is_the_mean_over_valid_rows(objective: Objective, parts: dict) -> None:
    """A filler row takes no part, also not where rows are compared."""
    ((batch, answers),) = parts[None]
    valid_B = torch.arange(12) != 5
    batch = replace(batch, valid_B=valid_B, num_valid=11)
    module = module_of(objective).eval()
    output = module(batch, answers, KNOBS)
    logits_NV = output.logits_BV[valid_B]
    mixed_NV = 0.3 * answers.logits_KBV[0] + 0.7 * answers.logits_KBV[1]
    logp_NV = torch.log_softmax(mixed_NV[valid_B] / 2, -1)
    labels_N = batch.labels_B[valid_B]
    assert (labels_N == UNLABELLED).any() and (labels_N >= 0).any()
    expected = objective(logits_NV, Target(logp_NV, torch.ones(1, 11), labels_N), 2.0).mean()
    expected = objective.coefficient(2.0) * expected
    assert expected > 0
    torch.testing.assert_close(output.metrics["kd.loss"].sum, expected.detach())


def test_decoupled_reads_the_labels(parts: dict) -> None:
    ((batch, answers),) = parts[None]
    module = module_of(Decoupled()).eval()
    others = replace(batch, labels_B=(batch.labels_B + 1) % NUM_CLASSES)
    found = [float(module(b, answers, KNOBS).metrics["kd.loss"].sum) for b in (batch, others)]
    assert abs(found[0] - found[1]) > 0.01 * found[0]


@by_type
def test_micro_batches_add_up_unless_rows_are_coupled(objective: Objective, parts: dict) -> None:
    module = module_of(objective).eval()
    whole, split = grads(module, parts[None]), grads(module, parts[4])
    are_equal = all(
        torch.allclose(one, other, atol=1e-5, rtol=1e-3)
        for one, other in zip(whole, split, strict=True)
    )
    assert are_equal == (not objective.couples_rows)
