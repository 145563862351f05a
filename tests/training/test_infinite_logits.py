"""Logits of −∞ and infinite divergences: 0·log 0 = 0, and a term of weight 0 is left out.

A masked class is one that a model rules out by the logit −∞, as models with padded or restricted
vocabularies do. If teacher and student rule out the same classes, every value and gradient is that
without these classes. Shape suffixes: N rows, V classes, K teachers.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from distill.aggregation import FixedWeights, Uncertainty, UniformMean
from distill.aggregation.mixture import Space, mix
from distill.objectives import (
    AdaptiveKL,
    Comparative,
    CorrelationMatching,
    Cosine,
    Decoupled,
    Dist,
    ForwardKL,
    GeneralisedJSD,
    Objective,
    ReverseKL,
    RobustCorrelation,
    SkewedForwardKL,
    SkewedReverseKL,
    TotalVariation,
    UniversalLogits,
)
from distill.objectives.log_softmax import logsumexp
from distill.records import (
    UNLABELLED,
    LossOutput,
    ScheduleValues,
    Target,
    TeacherAnswers,
    TokenAnswers,
)
from distill.training.class_module import DistillModule
from distill.training.fused import Chunk, fused
from distill.training.token_loss import Reader, TokenLoss
from distill.wires import DenseWire, TopKWire, WireFormat
from tests.objective_references import SINGLE
from tests.toys_logits import GivenLogits, batch_of

INF = math.inf
KINDS = list(SINGLE)


def rows(*values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.double)


def logs(*values: list[float]) -> Tensor:
    return rows(*values).log()


def target_of(logits_NV: Tensor, temperature: float = 1.0, labels_N: Any = None) -> Target:
    logp_NV = torch.log_softmax(logits_NV / temperature, -1)
    return Target(logp_NV, torch.ones(1, len(logits_NV)), labels_N)


def graded(objective: Objective, z_S: Tensor, target: Target, T: float) -> tuple[Tensor, Tensor]:
    """Values, and the gradient of their sum."""
    z_S = z_S.clone().requires_grad_()
    value_N = objective(z_S, target, T)
    return value_N.detach(), torch.autograd.grad(value_N.sum(), z_S)[0]


def drawn(seed: int, *shape: int) -> Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


# ---- divergences ------------------------------------------------------------------------------

KEPT = [0, 1, 3, 4]


CENTRED = ("dist", "cmkd", "r2kd")  # a probability of 0 is an entry of what they correlate


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in CENTRED])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_class_that_both_rule_out_counts_as_deleted(kind: str, temperature: float) -> None:
    objective = SINGLE[kind][0]
    z_T, z_S = drawn(0, 4, 5), drawn(1, 4, 5)
    labels_N = torch.tensor([0, 1, 3, UNLABELLED])
    short = target_of(z_T[:, KEPT], temperature, torch.tensor([0, 1, 2, UNLABELLED]))
    expected, expected_grad = graded(objective, z_S[:, KEPT], short, temperature)
    z_T[:, 2] = z_S[:, 2] = -INF
    target = target_of(z_T, temperature, labels_N)
    found, found_grad = graded(objective, z_S, target, temperature)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found_grad[:, KEPT], expected_grad)
    assert (found_grad[:, 2] == 0).all()


P_T, P_S = [0.5, 0.25, 0.25], [0.75, 0.25, 0.0]  # the student rules out the last class
LOG = math.log
BY_HAND: dict[str, tuple[Objective, float]] = {
    "reverse_kl": (ReverseKL(), 0.75 * LOG(1.5)),
    "jsd": (
        GeneralisedJSD(),
        0.5 * (0.5 * LOG(0.5 / 0.625) + 0.25 * LOG(2)) + 0.5 * 0.75 * LOG(0.75 / 0.625),
    ),
    "skewed_forward_kl": (
        SkewedForwardKL(),
        0.5 * LOG(0.5 / 0.725) + 0.25 * LOG(0.25 / 0.025),
    ),
    "skewed_reverse_kl": (SkewedReverseKL(), 0.75 * LOG(0.75 / (0.9 * 0.5 + 0.1 * 0.75))),
    "total_variation": (TotalVariation(), 0.25),
    "uld": (UniversalLogits(), 0.25 + 0 + 0.25),
}


@pytest.mark.parametrize("kind", BY_HAND)
def test_a_class_that_the_student_rules_out_has_a_finite_gradient(kind: str) -> None:
    """The value by hand. The gradient is the limit: that of a student that nearly rules it out."""
    objective, expected = BY_HAND[kind]
    target = target_of(logs(P_T))
    value, grad = graded(objective, logs(P_S), target, 1.0)
    torch.testing.assert_close(value, rows([expected])[0])
    nearly = logs(P_S)
    nearly[0, 2] = -60.0
    torch.testing.assert_close(grad, graded(objective, nearly, target, 1.0)[1])
    assert grad[0, 2] == 0 and (grad[0, :2] != 0).all()


def test_the_forward_kl_of_a_class_that_only_the_student_rules_out_is_infinite() -> None:
    value, grad = graded(ForwardKL(), logs(P_S), target_of(logs(P_T)), 1.0)
    assert value.item() == INF
    torch.testing.assert_close(grad, rows(P_S) - rows(P_T))  # pulls the class back


@pytest.mark.parametrize(
    "objective",
    [Cosine(), CorrelationMatching(), RobustCorrelation(), Dist(), Comparative()],
    ids=lambda o: o.type,
)
def test_correlations_are_numbers_where_the_student_rules_a_class_out(objective: Any) -> None:
    z_T, z_S = drawn(0, 4, 5), drawn(1, 4, 5)
    z_S[1, 2] = z_S[3, 0] = -INF
    z_T[3, 0] = -INF
    value_N, grad_NV = graded(objective, z_S, target_of(z_T, 2.0), 2.0)
    assert value_N.isfinite().all() and (value_N > 0).all()
    assert grad_NV.isfinite().all() and grad_NV[1, 2] == grad_NV[3, 0] == 0 and grad_NV.any()


def test_an_adaptive_part_without_weight_is_left_out() -> None:
    """Equal heads: reverse KL alone, also where the forward one is infinite. Then the whole
    distribution as the head: forward KL alone, where the reverse one is infinite."""
    p_T, p_S = [0.5, 0.25, 0.25], [0.5, 0.5, 0.0]
    target = target_of(logs(p_T))
    value, grad = graded(AdaptiveKL(), logs(p_S), target, 1.0)
    torch.testing.assert_close(value, rows([0.5 * LOG(2)])[0])
    torch.testing.assert_close(grad, graded(ReverseKL(), logs(p_S), target, 1.0)[1])
    ruled_out = target_of(logs([0.75, 0.25, 0.0]))
    student = logs([0.5, 0.25, 0.25])
    value, grad = graded(AdaptiveKL(head_mass=1.0), student, ruled_out, 1.0)
    torch.testing.assert_close(value, rows([0.75 * LOG(1.5)])[0])
    torch.testing.assert_close(grad, student.exp() - ruled_out.logp_NV.exp())


def test_decoupled_with_a_student_that_is_certain_of_the_label() -> None:
    """Only its label is left: of a teacher that agrees 0, with gradient 0. Without the weight β of
    the other classes their infinite KL does not count."""
    certain = logs([1.0, 0.0, 0.0])
    labels_N = torch.tensor([0])
    value, grad = graded(Decoupled(), certain, target_of(certain, 1.0, labels_N), 1.0)
    assert value.item() == 0 and not grad.any()
    target = target_of(logs([0.5, 0.25, 0.25]), 1.0, labels_N)
    student = logs([0.5, 0.5, 0.0])
    assert graded(Decoupled(), student, target, 1.0)[0].item() == INF
    value, grad = graded(Decoupled(beta=0), student, target, 1.0)
    torch.testing.assert_close(value, torch.zeros(1, dtype=torch.double))
    torch.testing.assert_close(grad, torch.zeros_like(grad))


def test_the_log_sum_of_nothing_has_no_gradient() -> None:
    x = torch.tensor([[-INF, -INF], [0.0, -INF], [1.0, 1.0]], requires_grad=True)
    value = logsumexp(x)
    torch.testing.assert_close(value[:, 0], torch.tensor([-INF, 0.0, 1 + LOG(2)]))
    (grad,) = torch.autograd.grad(value[:, 0].sum(), x)
    torch.testing.assert_close(grad, torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 0.5]]))


# ---- aggregations -----------------------------------------------------------------------------


@pytest.mark.parametrize("space", ["logits", "probabilities"])
def test_a_teacher_without_weight_rules_nothing_out(space: Space) -> None:
    z_KNV = drawn(0, 2, 3, 4)
    expected = torch.log_softmax(z_KNV[0] / 2, -1)
    z_KNV[1, :, 2] = -INF
    weights_KN = rows([1.0] * 3, [0.0] * 3)
    torch.testing.assert_close(mix(z_KNV, weights_KN, 2.0, space).logp_NV, expected)
    # With a weight it does among logits, and only lowers the probability otherwise.
    both = mix(z_KNV, rows([0.5] * 3, [0.5] * 3), 2.0, space).logp_NV
    assert (both[:, 2] == -INF).all() == (space == "logits")
    torch.testing.assert_close(both.exp().sum(-1), torch.ones(3, dtype=torch.double))


def test_the_entropy_of_a_teacher_that_rules_a_class_out_is_a_number() -> None:
    logits_KNV = torch.stack([logs([0.5, 0.5, 0.0, 0.0]), logs([0.25] * 4)])
    payloads = TeacherAnswers(logits_KNV, torch.ones(2, 1, dtype=torch.bool))
    weights_KN = Uncertainty(tau=0.5).weigh(payloads, None, None).weights_KB
    # 1 − H / log 4 is ½ of two classes, 0 of four: over τ 1 and 0.
    e = math.e
    torch.testing.assert_close(weights_KN[:, 0], rows([e / (e + 1), 1 / (e + 1)])[0])


# ---- classifiers ------------------------------------------------------------------------------


def classified(
    z_T: Tensor, z_S: Tensor, objective: Objective, alpha: float, labels: list[int]
) -> tuple[LossOutput, Tensor]:
    """The module's output of a batch of these logits, and the gradient by the student's."""
    student: Any = GivenLogits(z_S)
    module = DistillModule(student, objective, UniformMean(), ("a",), z_S.shape[1])
    answers = TeacherAnswers(z_T[None], torch.ones(1, len(labels), dtype=torch.bool))
    output = module(batch_of(labels), answers, ScheduleValues(1.0, alpha))
    output.loss.backward()
    return output, student.logits_BV.grad


def test_a_class_that_a_classifier_rules_out_leaves_loss_and_gradient_finite() -> None:
    """Of rows without a label as well: the part that keeps the graph has to be 0, not 0 · ∞."""
    z_T, z_S = drawn(0, 2, 4).float(), drawn(1, 2, 4).float()
    expected, expected_grad = classified(z_T[:, :3], z_S[:, :3], ReverseKL(), 0.5, [1, UNLABELLED])
    z_T[:, 3] = z_S[:, 3] = -INF
    found, grad = classified(z_T, z_S, ReverseKL(), 0.5, [1, UNLABELLED])
    torch.testing.assert_close(found.loss, expected.loss)
    torch.testing.assert_close(grad[:, :3], expected_grad)
    assert not grad[:, 3].any()


@pytest.mark.parametrize("objective", [ForwardKL(), ReverseKL()], ids=lambda o: o.type)
def test_a_classifiers_infinite_divergence_of_weight_0_does_not_count(objective: Any) -> None:
    """It is reported all the same."""
    full, ruled_out = torch.zeros(1, 3), torch.tensor([[0.0, 0.0, -INF]])
    z_T, z_S = (full, ruled_out) if objective.type == "forward_kl" else (ruled_out, full)
    found, grad = classified(z_T, z_S, objective, 0.0, [1])
    torch.testing.assert_close(found.loss, -torch.log_softmax(z_S, -1)[0, 1])
    torch.testing.assert_close(grad, z_S.softmax(-1) - torch.tensor([[0.0, 1.0, 0.0]]))
    assert found.metrics["kd.loss"].sum == INF


def test_a_classifiers_infinite_cross_entropy_of_weight_0_does_not_count() -> None:
    ruled_out = torch.tensor([[0.0, 1.0, -INF]])
    found, grad = classified(torch.tensor([[1.0, 0.0, -INF]]), ruled_out, ForwardKL(), 1.0, [2])
    assert found.loss.isfinite() and found.metrics["ce.loss"].sum == INF
    p_T = torch.tensor([1.0, 0.0, -INF]).softmax(-1)
    torch.testing.assert_close(grad[0], ruled_out[0].softmax(-1) - p_T)


# ---- positions of a language model --------------------------------------------------------------

N, V = 5, 7
SPLITS = [Chunk(N), Chunk(2), Chunk(N, 3), Chunk(2, 1)]
splits = pytest.mark.parametrize("chunk", SPLITS, ids=str)


def positions(
    z_KNV: Tensor,
    z_S: Tensor,
    objective: Objective,
    chunk: Chunk,
    alpha: float = 0.5,
    aggregation: Any = None,
    labels: list[int] | None = None,
    wire: WireFormat | None = None,
    lengths: list[int] | None = None,
) -> tuple[float, Tensor, TokenLoss]:
    """Loss, its gradient by the student's logits, and the loss object. The logits are the bias of
    a head of zeros where all positions have the same, else hidden states under the identity."""
    wire = wire or DenseWire(dtype="float32")
    num = len(z_S)
    payloads = tuple(wire.encode(z_NV.float()) for z_NV in z_KNV)
    queried_KN = torch.ones(len(z_KNV), num, dtype=torch.bool)
    loss = TokenLoss(
        torch.tensor(labels or [1] * num),
        z_S.shape[1],
        ScheduleValues(2.0, alpha),
        TokenAnswers(payloads, queried_KN),
        [Reader(wire, None, z_S.shape[1])] * len(z_KNV),
        aggregation or UniformMean(),
        objective,
        lengths=lengths,
    )
    # One hidden number per position and a bias: −∞ · 0 of a product is NaN.
    assert torch.equal(z_S, z_S[:1].expand_as(z_S))
    bias_V = z_S[0].clone().requires_grad_()
    hidden_N1, head_V1 = torch.zeros(num, 1).double(), torch.zeros(z_S.shape[1], 1).double()
    value = fused(hidden_N1, head_V1, bias_V, loss, chunk)
    return value.item(), torch.autograd.grad(value, bias_V)[0], loss


def same(z_V: Tensor) -> Tensor:
    return z_V[None].expand(N, -1)


ELEMENTWISE = [kind for kind in KINDS if SINGLE[kind][0].is_elementwise]


@splits
@pytest.mark.parametrize("kind", ELEMENTWISE)
@pytest.mark.parametrize("space", ["logits", "probabilities"])
def test_a_token_that_all_rule_out_counts_as_deleted(kind: str, chunk: Chunk, space: Any) -> None:
    """Also as the whole of a part of the vocabulary."""
    kept = [0, 1, 2, 4, 5, 6]
    z_KNV, z_V = drawn(0, 2, N, V), drawn(1, V)
    aggregation = FixedWeights(weights=(0.25, 0.75), mix=space)
    objective = SINGLE[kind][0]
    short = positions(
        z_KNV[..., kept], same(z_V[kept]), objective, Chunk(N), aggregation=aggregation
    )
    z_KNV[..., 3] = z_V[3] = -INF
    value, grad_V, _ = positions(z_KNV, same(z_V), objective, chunk, aggregation=aggregation)
    assert value == pytest.approx(short[0], rel=1e-5)
    torch.testing.assert_close(grad_V[kept], short[1], rtol=1e-4, atol=1e-5)
    assert grad_V[3] == 0


@splits
def test_an_infinite_divergence_of_alpha_0_leaves_the_cross_entropy(chunk: Chunk) -> None:
    for objective in (ForwardKL(), ReverseKL()):
        full, ruled_out = torch.zeros(V).double(), torch.zeros(V).double()
        ruled_out[5] = -INF
        z_T, z_S = (full, ruled_out) if objective.type == "forward_kl" else (ruled_out, full)
        value, grad_V, loss = positions(same(z_T)[None], same(z_S), objective, chunk, alpha=0.0)
        assert value == pytest.approx(-N * float(z_S.log_softmax(-1)[1]))
        expected = N * (z_S.softmax(-1) - torch.eye(V)[1])
        torch.testing.assert_close(grad_V, expected)
        assert loss.sums.kd == INF


@splits
def test_an_infinite_cross_entropy_of_weight_0_leaves_the_divergence(chunk: Chunk) -> None:
    z_T, z_S = drawn(0, V).float().double(), drawn(1, V)
    z_T[1] = z_S[1] = -INF  # the label
    value, grad_V, loss = positions(same(z_T)[None], same(z_S), ForwardKL(), chunk, alpha=1.0)
    p_T, p_S = (z_T / 2).softmax(-1), (z_S / 2).softmax(-1)
    terms = torch.where(p_T > 0, p_T * (p_T / p_S).log(), 0.0)
    assert value == pytest.approx(4 * N * float(terms.sum()), rel=1e-5)
    torch.testing.assert_close(grad_V, 2 * N * (p_S - p_T), rtol=1e-5, atol=1e-6)
    assert loss.sums.ce == INF


@splits
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("objective", [ReverseKL(), ForwardKL()], ids=lambda o: o.type)
def test_means_of_sequences_are_those_of_each_alone(
    objective: Objective, alpha: float, chunk: Chunk
) -> None:
    """With a token that the student rules out, which makes the forward KL infinite."""
    z_NV, z_V = drawn(0, N, V), drawn(1, V)
    z_V[4] = -INF
    value, grad_V, loss = positions(
        z_NV[None], same(z_V), objective, chunk, alpha, lengths=[2, N - 2]
    )
    parts = [
        positions(z_NV[None, at], same(z_V)[at], objective, Chunk(N), alpha)
        for at in (slice(2), slice(2, N))
    ]
    assert math.isfinite(value) == (objective.type == "reverse_kl" or alpha == 0)
    assert value == pytest.approx(parts[0][0] / 2 + parts[1][0] / (N - 2), rel=1e-5)
    expected_V = parts[0][1] / 2 + parts[1][1] / (N - 2)
    assert expected_V.isfinite().all() and (expected_V != 0).any()
    torch.testing.assert_close(grad_V, expected_V, rtol=1e-4, atol=1e-6)
    kd = parts[0][2].sums.kd + parts[1][2].sums.kd
    torch.testing.assert_close(loss.sums.kd, kd, rtol=1e-5, atol=0)


@pytest.mark.parametrize("objective", [ForwardKL(), ReverseKL()], ids=lambda o: o.type)
def test_teachers_compared_one_by_one_count_by_their_weights(objective: Objective) -> None:
    """One of weight 0 is infinitely far: loss and gradient are those of the other alone."""
    z_KNV, z_S = drawn(0, 2, N, V).float().double(), same(drawn(1, V))
    if objective.type == "forward_kl":
        z_KNV[0, :, 2] = -INF
        z_S = z_S.clone()
        z_S[:, 2] = -INF
    else:
        z_KNV[1, :, 2] = -INF
    weights = FixedWeights(weights=(1.0, 0.0), mix="divergences")
    found = positions(z_KNV, z_S, objective, Chunk(N), aggregation=weights)
    alone = positions(z_KNV[:1], z_S, objective, Chunk(N))
    assert found[0] == pytest.approx(alone[0], rel=1e-6)
    torch.testing.assert_close(found[1], alone[1])
    assert found[2].sums.apart_K[1] == INF and found[2].sums.num_apart_K.tolist() == [N, N]


def test_the_kept_tokens_of_a_wire_may_be_all_that_the_student_has() -> None:
    """The tail of both is empty: the KL over the kept tokens, in value and gradient."""
    wire = TopKWire(k=3, temperatures=(2.0,))
    z_T, z_S = torch.full((V,), -INF).double(), torch.full((V,), -INF).double()
    z_T[:3], z_S[:3] = torch.tensor([2.0, 1.0, 0.0]), torch.tensor([0.0, 1.0, 1.0])
    z_S[:3] = torch.tensor([0.0, 1.0, 1.0])
    value, grad_V, _ = positions(
        same(z_T)[None], same(z_S), ForwardKL(), Chunk(N), alpha=1.0, wire=wire
    )
    p_T, p_S = (z_T[:3] / 2).softmax(-1), (z_S[:3] / 2).softmax(-1)
    assert value == pytest.approx(4 * N * float((p_T * (p_T / p_S).log()).sum()), rel=1e-4)
    torch.testing.assert_close(grad_V[:3], 2 * N * (p_S - p_T), rtol=1e-4, atol=1e-5)
    assert not grad_V[3:].any()
