"""The classifier's loss and metrics by hand: float64 in numpy, row by row.

Shape suffixes: B rows, N valid rows, K teachers, V classes, T tokens, H hidden.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from distill.aggregation import Attention, FixedWeights, LearnedRouter
from distill.objectives import ForwardKL, TotalVariation
from distill.records import UNLABELLED, Batch, LossOutput, ScheduleValues, TeacherAnswers
from distill.training.class_module import DistillModule, pooled
from tests.objective_references import Array, kl, softmax
from tests.toys_logits import GivenLogits, batch_of

B, K, V, T, H = 6, 2, 3, 4, 5
LABELS = [2, 0, UNLABELLED, 1, 1, 0]
VALID = [0, 1, 2, 3, 4]  # the last row fills the batch up
LABELLED = [0, 1, 3, 4]
NUM_VALID, NUM_LABELLED = 8, 7  # of the global batch: there are other micro-batches
ASKED = np.array([[1, 1, 1, 0, 1, 1], [1, 0, 1, 1, 1, 1]], bool)
WEIGHTS = (0.25, 0.75)
GENERATOR = np.random.default_rng(1)
Z_S, Z_T = 2 * GENERATOR.standard_normal((B, V)), 2 * GENERATOR.standard_normal((K, B, V))
Z_T = Z_T * ASKED[..., None]


def batch() -> Batch:
    is_valid_B = torch.tensor([b in VALID for b in range(B)])
    return batch_of(LABELS, valid_B=is_valid_B, num_valid=NUM_VALID, num_labelled=NUM_LABELLED)


def tensor(values: Array) -> Tensor:
    return torch.from_numpy(values).float()


def module_of(objective: Any = None, aggregation: Any = None, **more: Any) -> DistillModule:
    student: Any = GivenLogits(tensor(Z_S), tensor(GENERATOR.standard_normal((B, T, H))))
    given = (objective or ForwardKL(), aggregation or FixedWeights(weights=WEIGHTS))
    return DistillModule(student, *given, ("a", "b"), V, **more)


def answered(module: DistillModule, temperature: float, alpha: float) -> LossOutput:
    answers = TeacherAnswers(tensor(Z_T), torch.from_numpy(ASKED))
    return module(batch(), answers, ScheduleValues(temperature, alpha))


def weights() -> Array:
    """[K, B]: the fixed weights over the teachers that were queried."""
    kept = np.array(WEIGHTS)[:, None] * ASKED
    return kept / kept.sum(0)


def soft(temperature: float) -> float:
    """Σ KL over the valid rows, without c(T)."""
    mixed = (weights()[..., None] * Z_T).sum(0)
    pairs = zip(softmax(mixed / temperature), softmax(Z_S / temperature), strict=True)
    return sum(kl(p, q) for b, (p, q) in enumerate(pairs) if b in VALID)


def hard() -> float:
    return sum(-np.log(softmax(Z_S)[b, LABELS[b]]) for b in LABELLED)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_loss_is_alpha_of_the_teachers_and_the_rest_of_the_labels(
    alpha: float, temperature: float
) -> None:
    """α · T² · Σ KL / valid rows + (1 − α) · Σ CE / labelled rows, both of the global batch."""
    module = module_of()
    found = answered(module, temperature, alpha)
    kd, ce = temperature**2 * soft(temperature) / NUM_VALID, hard() / NUM_LABELLED
    assert found.loss.item() == pytest.approx(alpha * kd + (1 - alpha) * ce, rel=1e-5)
    metrics = found.metrics
    share = len(VALID) / NUM_VALID
    for name, value in (("loss", found.loss.item()), ("kd.loss", kd)):
        assert (metrics[name].sum.item(), float(metrics[name].count)) == pytest.approx(
            (value, share), rel=1e-5
        )
    assert metrics["ce.loss"].sum.item() == pytest.approx(ce, rel=1e-5)
    assert float(metrics["ce.loss"].count) == pytest.approx(len(LABELLED) / NUM_LABELLED)
    # By the student's gradient: the filler row has none.
    found.loss.backward()
    student: Any = module.student
    grad_BV = student.logits_BV.grad
    assert not grad_BV[5].any()
    assert bool(grad_BV[2].any()) == (alpha > 0), "a row without a label has only a soft term"


def test_the_scale_and_weight_of_another_objective() -> None:
    found = answered(module_of(TotalVariation(weight=2.5)), 3.0, 1.0)
    mixed = (weights()[..., None] * Z_T).sum(0)
    apart = 0.5 * np.abs(softmax(mixed / 3) - softmax(Z_S / 3)).sum(-1)
    expected = 2.5 * 3 * apart[VALID].sum() / NUM_VALID
    assert found.loss.item() == pytest.approx(expected, rel=1e-5)


def test_metrics_of_teachers_are_at_temperature_1_over_the_rows_that_they_answered() -> None:
    metrics = answered(module_of(), 3.0, 0.5).metrics
    for k, name in enumerate("ab"):
        rows = [b for b in VALID if ASKED[k, b]]
        apart = sum(kl(softmax(Z_T[k, b]), softmax(Z_S[b])) for b in rows)
        divergence, weight = metrics[f"teacher.{name}.kl"], metrics[f"teacher.{name}.weight"]
        assert (divergence.sum.item(), divergence.count.item()) == pytest.approx(
            (apart, len(rows)), rel=1e-5
        )
        total = weights()[k, VALID].sum()
        assert (weight.sum.item(), weight.count.item()) == pytest.approx((total, 5), rel=1e-5)
    hits = metrics["train.accuracy"]
    right = sum(int(Z_S[b].argmax() == LABELS[b]) for b in LABELLED)
    assert (hits.sum.item(), hits.count.item()) == (right, 4) and 0 < right < 4


def test_in_evaluation_the_aggregate_is_at_temperature_1() -> None:
    module = module_of()
    assert answered(module, 3.0, 0.5).teacher_logp_BV is None
    found = answered(module.eval(), 3.0, 0.5)
    assert found.teacher_logp_BV is not None and found.weights_KB is not None
    mixed = (weights()[..., None] * Z_T).sum(0)
    np.testing.assert_allclose(found.teacher_logp_BV.exp(), softmax(mixed), rtol=1e-4)
    np.testing.assert_allclose(found.weights_KB, weights(), rtol=1e-5)
    np.testing.assert_allclose(found.logits_BV.detach(), Z_S, rtol=1e-6)  # type: ignore[union-attr]


def test_without_teachers_it_is_the_cross_entropy_whatever_alpha_is() -> None:
    for alpha in (0.0, 0.9):
        found = module_of()(batch(), None, ScheduleValues(3.0, alpha))
        assert found.loss.item() == pytest.approx(hard() / NUM_LABELLED, rel=1e-5)
        assert found.metrics.keys() == {"loss", "ce.loss", "train.accuracy"}
        assert found.metrics["loss"].sum == found.loss.detach()
        assert float(found.metrics["loss"].count) == len(VALID) / NUM_VALID


def test_without_a_labelled_row_in_the_global_batch_there_is_no_cross_entropy() -> None:
    unlabelled = replace(batch(), labels_B=torch.full((B,), UNLABELLED), num_labelled=0)
    found: LossOutput = module_of()(unlabelled, None, ScheduleValues())
    assert found.loss.item() == 0 and found.metrics.keys() == {"loss"}
    found.loss.backward()  # a graph all the same


# ---- trained weights --------------------------------------------------------------------------


def test_the_input_of_trained_weights_is_the_mean_of_a_rows_own_tokens() -> None:
    hidden_BTH = tensor(GENERATOR.standard_normal((2, T, H)))
    mask_BT = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0]])
    masked = batch_of([0, 1], attention_mask_BT=mask_BT)
    found_BH = pooled(hidden_BTH, masked)
    torch.testing.assert_close(found_BH[0], hidden_BTH[0, :2].mean(0))
    torch.testing.assert_close(found_BH[1], hidden_BTH[1, :3].mean(0))
    torch.testing.assert_close(pooled(hidden_BTH, batch_of([0, 1])), hidden_BTH.mean(1))
    assert pooled(hidden_BTH.bfloat16(), masked).dtype == torch.float32


@pytest.mark.parametrize("aggregation", [Attention(dropout=0), LearnedRouter()])
@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_the_loss_of_trained_weights_is_added(aggregation: Any, alpha: float) -> None:
    """−Σ log Σ_k w_k p_k(y) / labelled − α · T² · β · Σ H(w) / valid, p_k at temperature 1."""
    torch.manual_seed(0)
    module = module_of(aggregation=aggregation, domain_teachers=(1, -1, 0))
    assert module.router is not None
    for param in module.router.parameters():
        torch.nn.init.normal_(param, std=0.5)
    module.eval()
    given = replace(batch(), domains_B=torch.tensor([0, 2, -1, 2, 1, 0]))
    answers = TeacherAnswers(tensor(Z_T), torch.from_numpy(ASKED))
    found = module(given, answers, ScheduleValues(3.0, alpha))
    weights_KB = found.weights_KB.double().numpy()
    nll = sum(
        -np.log(sum(weights_KB[k, b] * softmax(Z_T[k, b])[LABELS[b]] for k in range(K)))
        for b in LABELLED
    )
    entropy_B = np.array([-sum(w * np.log(w) for w in row if w > 0) for row in weights_KB.T])
    own = nll / NUM_LABELLED
    own -= alpha * 9 * aggregation.beta * entropy_B[VALID].sum() / NUM_VALID
    kd, ce = found.metrics["kd.loss"].sum.item(), found.metrics["ce.loss"].sum.item()
    assert found.loss.item() == pytest.approx(alpha * kd + (1 - alpha) * ce + own, rel=1e-5)
    metrics = found.metrics
    of_loss, of_entropy = metrics["router.loss"], metrics["router.entropy"]
    assert (of_loss.sum.item(), of_loss.count.item()) == pytest.approx((nll, 4), rel=1e-5)
    assert (of_entropy.sum.item(), of_entropy.count.item()) == pytest.approx(
        (entropy_B[VALID].sum(), 5), rel=1e-4
    )
    # Domain 0 is the second teacher's, domain 2 the first's; the others are nobody's.
    right = [
        weights_KB[:, b].argmax() == domain_teacher
        for b, domain_teacher in ((0, 1), (1, 0), (3, 0))
    ]
    accuracy = metrics["router.accuracy"]
    assert (accuracy.sum.item(), accuracy.count.item()) == (sum(right), 3)
    found.loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.router.parameters())


def test_without_names_of_domains_there_is_no_accuracy_of_weights() -> None:
    module = module_of(aggregation=LearnedRouter())
    assert answered(module, 2.0, 0.5).metrics["router.accuracy"].count == 0
