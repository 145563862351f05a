"""The language model's loss and metrics from its hidden states, by hand.

Shape suffixes: B rows, N positions, K teachers, V vocabulary, H hidden.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from distill.aggregation import Attention, FixedWeights, LearnedRouter
from distill.config import Serving
from distill.models.decoder import head_of
from distill.objectives import ForwardKL
from distill.objectives.log_softmax import LEFT_OUT
from distill.records import Batch, Head, ScheduleValues, TokenAnswers
from distill.teachers.served import ServedTeacher
from distill.training.token_module import TokenModule
from distill.wires import DenseWire, HiddenWire
from tests.toys_language import NUM_TOKENS, llama
from tests.training.test_token_positions import batch

N, NUM_VALID, T, ALPHA = 5, 8, 2.0, 0.3  # other micro-batches have three positions
ASKED_KN = torch.tensor([[1, 1, 1, 0, 1], [1, 0, 1, 1, 1]]).bool()
LABELS_N = torch.tensor([11, 12, 14, 22, 23])


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def teachers() -> tuple[Tensor, TokenAnswers, Head]:
    """Logits [K, N, V] of a teacher that sends them, and of one that sends hidden states."""
    head = Head(drawn(1, NUM_TOKENS + 3, 6))  # padded
    dense_NV, hidden_NH = 2 * drawn(2, N, NUM_TOKENS), drawn(3, N, 6)
    payloads = (DenseWire(dtype="float32").encode(dense_NV[ASKED_KN[0]]),)
    payloads += (HiddenWire(dtype="float32").encode(hidden_NH[ASKED_KN[1]]),)
    logits_KNV = torch.stack([dense_NV, hidden_NH @ head.weight_VH[:NUM_TOKENS].T])
    return logits_KNV * ASKED_KN[..., None], TokenAnswers(payloads, ASKED_KN), head


def module_of(aggregation: Any, **more: Any) -> TokenModule:
    wires: dict[str, Any] = {"a": DenseWire(dtype="float32"), "b": HiddenWire(dtype="float32")}
    served = [ServedTeacher(n, "", Serving(wire=w), NUM_TOKENS) for n, w in wires.items()]
    torch.manual_seed(0)
    module = TokenModule(llama(5), NUM_TOKENS, ForwardKL(), aggregation, served, **more)
    module.take_heads({"b": teachers()[2]}, "cpu")
    if module.router is not None:
        for param in module.router.parameters():
            torch.nn.init.normal_(param, std=0.3)
    return module.eval()


def given() -> Batch:
    return replace(batch(), num_valid=NUM_VALID, domains_B=torch.tensor([1, 0]))


def student_logits(module: TokenModule) -> Tensor:
    hidden_NH, labels_N = module.positions(given())
    assert torch.equal(labels_N, LABELS_N)
    head: Any = head_of(module.student)
    return (hidden_NH @ head.weight[:NUM_TOKENS].T).detach()


def soft(z_NV: Tensor, weights_KN: Tensor, space: str) -> Tensor:
    """T² · KL at each position."""
    z_KNV = teachers()[0]
    if space == "logits":
        p_T_NV = ((weights_KN[..., None] * z_KNV).sum(0) / T).softmax(-1)
    else:
        p_T_NV = (weights_KN[..., None] * (z_KNV / T).softmax(-1)).sum(0)
    return T * T * (p_T_NV * (p_T_NV.log() - (z_NV / T).log_softmax(-1))).sum(-1)


def pair(metric: Any) -> tuple[float, float]:
    return float(metric.sum), float(metric.count)


@pytest.mark.parametrize("loss_chunk_mb", [256, 1e-4], ids=["rows", "columns"])
def test_the_loss_is_alpha_of_the_teachers_and_the_rest_of_the_labels(loss_chunk_mb: float) -> None:
    module = module_of(FixedWeights(weights=(0.25, 0.75)), loss_chunk_mb=loss_chunk_mb)
    found = module(given(), teachers()[1], ScheduleValues(T, ALPHA))
    weights_KN = torch.tensor([0.25, 0.75])[:, None] * ASKED_KN
    weights_KN = weights_KN / weights_KN.sum(0)
    z_NV = student_logits(module)
    kd, ce = soft(z_NV, weights_KN, "logits").sum(), cross_entropy(z_NV, LABELS_N, reduction="sum")
    expected = float(ALPHA * kd + (1 - ALPHA) * ce) / NUM_VALID
    assert found.loss.item() == pytest.approx(expected, rel=1e-4)
    metrics = found.metrics
    assert pair(metrics["loss"]) == pytest.approx((expected, N / NUM_VALID), rel=1e-4)
    assert pair(metrics["kd.loss"]) == pytest.approx((float(kd), N), rel=1e-4)
    assert pair(metrics["ce.loss"]) == pytest.approx((float(ce), N), rel=1e-4)
    hits = int((z_NV.argmax(1) == LABELS_N).sum())
    assert pair(metrics["train.accuracy"]) == (hits, N)
    for k, name in enumerate("ab"):
        weight = float(weights_KN[k].sum())
        assert pair(metrics[f"teacher.{name}.weight"]) == pytest.approx((weight, N))
        assert f"teacher.{name}.divergence" in metrics
    assert "router.loss" not in metrics and found.logits_BV is None


def test_without_teachers_it_is_the_cross_entropy() -> None:
    module = module_of(None)
    found = module(given(), None, ScheduleValues(T, 0.9))
    ce = cross_entropy(student_logits(module), LABELS_N, reduction="sum")
    assert found.loss.item() == pytest.approx(float(ce) / NUM_VALID, rel=1e-4)
    assert found.metrics.keys() == {"loss", "ce.loss", "train.accuracy"}


@pytest.mark.parametrize("aggregation", [Attention(dropout=0, entropy_weight=0.5), LearnedRouter()])
def test_the_loss_of_trained_weights_is_added(aggregation: Any) -> None:
    """The likelihood counts the positions that all teachers answered, the entropy all of them."""
    module = module_of(aggregation, domain_teachers=(1, -1))
    found = module(given(), teachers()[1], ScheduleValues(T, ALPHA))
    routes = module.routes(given(), module.positions(given())[0])
    assert routes is not None
    log_w_KN = routes.log_weights_KN.detach()
    assert routes.domain_teacher_N.tolist() == [-1, -1, -1, 1, 1]  # rows of domains 1 and 0
    kept_KN = log_w_KN.exp() * ASKED_KN
    z_NV = student_logits(module)
    kd = soft(z_NV, kept_KN / kept_KN.sum(0), "probabilities").sum()
    ce = cross_entropy(z_NV, LABELS_N, reduction="sum")
    label_logp_KN = teachers()[0].log_softmax(-1)[:, torch.arange(N), LABELS_N]
    nll_N = -(log_w_KN.exp() * label_logp_KN.exp()).sum(0).log()
    nll = float(nll_N[ASKED_KN.all(0)].sum())
    entropy = float(torch.special.entr(log_w_KN.exp()).sum())
    expected = float(ALPHA * kd + (1 - ALPHA) * ce) + nll
    expected -= ALPHA * T * T * aggregation.beta * entropy
    assert found.loss.item() == pytest.approx(expected / NUM_VALID, rel=1e-4)
    metrics = found.metrics
    assert pair(metrics["router.loss"]) == pytest.approx((nll, N), rel=1e-4)
    assert pair(metrics["router.entropy"]) == pytest.approx((entropy, N), rel=1e-4)
    right = int((log_w_KN.argmax(0)[3:] == 1).sum())
    assert pair(metrics["router.accuracy"]) == (right, 2)


def test_tokens_that_are_left_out_have_no_probability() -> None:
    module = module_of(None, left_out=(3, 7))
    head: Any = head_of(module.student)
    logits_NV = head(module.positions(given())[0])
    assert (logits_NV[:, [3, 7]] == LEFT_OUT).all() and (logits_NV == LEFT_OUT).sum() == 2 * N
