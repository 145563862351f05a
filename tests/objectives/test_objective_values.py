"""Every objective against its equation: values, gradients, and what its flags promise."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from distill.objectives import (
    AdaptiveKL,
    Comparative,
    CorrelationMatching,
    Cosine,
    Decoupled,
    Dist,
    ForwardKL,
    Objective,
    ReverseKL,
    RobustCorrelation,
    Single,
    SkewedForwardKL,
    SkewedReverseKL,
    WeightedSum,
)
from distill.objectives.divergence import kl_terms
from distill.objectives.log_softmax import LEFT_OUT
from distill.records import UNLABELLED, Target
from tests.objective_references import SINGLE, softmax, weighted_sum

KINDS = list(SINGLE)
kinds = pytest.mark.parametrize("kind", KINDS)
objectives = pytest.mark.parametrize(
    "objective",
    [
        *(objective for objective, _, _ in SINGLE.values()),
        weighted_sum((1, "forward_kl"), (0.1, "cosine")),
        weighted_sum((2, "dist"), (1, "comparative"), (1, "total_variation")),
    ],
    ids=lambda objective: objective.type,
)
LABELS_N = torch.tensor([3, 0, 1, 2, 0, 3])


def logits(seed: int, n: int = 6, v: int = 5) -> Tensor:
    return 2 * torch.randn(n, v, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def target_of(logits_NV: Tensor, temperature: float, labels_N: Tensor | None = LABELS_N) -> Target:
    logp_NV = torch.log_softmax(logits_NV / temperature, -1)
    return Target(logp_NV, torch.ones(1, len(logits_NV)), labels_N)


def gradient(objective: Objective, z_S: Tensor, target: Target, temperature: float) -> Tensor:
    z_S = z_S.clone().requires_grad_()
    (found,) = torch.autograd.grad(objective(z_S, target, temperature).sum(), z_S)
    return found


def test_the_list_has_every_objective() -> None:
    union, _ = get_args(Single)
    types = [variant.model_fields["type"].default for variant in get_args(union)]
    assert types == [objective.type for objective, _, _ in SINGLE.values()] == KINDS


@kinds
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_values_are_the_equations(kind: str, temperature: float) -> None:
    objective, reference, scale = SINGLE[kind]
    z_T, z_S = logits(0), logits(1)
    found = objective(z_S, target_of(z_T, temperature), temperature)
    expected = reference(z_T.numpy(), z_S.numpy(), LABELS_N.numpy(), temperature)
    if kind == "comparative":  # the rows' parts differ; their mean is the batch's
        found = found.mean().expand(len(found))
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)
    assert objective.scale(temperature) == scale(temperature)


# The adaptive weights are constants of the gradient; see below.
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "adaptive_kl"])
def test_gradients_match_finite_differences(kind: str) -> None:
    objective, target = SINGLE[kind][0], target_of(logits(0), 2.0)
    student = logits(1).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: objective(z, target, 2.0), (student,))


def test_adaptive_weights_have_no_gradient() -> None:
    z_S, target = logits(1), target_of(logits(0), 2.0)
    value_N = AdaptiveKL()(z_S, target, 2.0)
    forward_N, reverse_N = ForwardKL()(z_S, target, 2.0), ReverseKL()(z_S, target, 2.0)
    share_N1 = ((value_N - reverse_N) / (forward_N - reverse_N))[:, None]
    expected = share_N1 * gradient(ForwardKL(), z_S, target, 2.0)
    expected += (1 - share_N1) * gradient(ReverseKL(), z_S, target, 2.0)
    torch.testing.assert_close(gradient(AdaptiveKL(), z_S, target, 2.0), expected)


def test_the_adaptive_head_is_the_most_probable_token_and_those_within_half_the_mass() -> None:
    """With the gap in the head alone it is the forward KL, in the tail alone the reverse. Here the
    head has exactly half, and of equal tokens those that come first."""
    p_T = torch.tensor([[0.25, 0.25, 0.25, 0.15, 0.1]], dtype=torch.double)
    assert p_T.log().exp()[0, :2].sum() == 0.5
    target = Target(p_T.log(), torch.ones(1, 1))
    in_head = torch.tensor([[0.2, 0.3, 0.25, 0.15, 0.1]], dtype=torch.double).log()
    in_tail = torch.tensor([[0.25, 0.25, 0.1, 0.15, 0.25]], dtype=torch.double).log()
    for z_S, expected in ((in_head, ForwardKL()), (in_tail, ReverseKL())):
        value = AdaptiveKL()(z_S, target, 1.0)
        torch.testing.assert_close(value, expected(z_S, target, 1.0))
    # One token with more than half is the head.
    sure = torch.tensor([[0.8, 0.1, 0.1]], dtype=torch.double)
    z_S = torch.tensor([[0.8, 0.05, 0.15]], dtype=torch.double).log()
    target = Target(sure.log(), torch.ones(1, 1))
    torch.testing.assert_close(AdaptiveKL()(z_S, target, 1.0), ReverseKL()(z_S, target, 1.0))


@objectives
@pytest.mark.parametrize("dtype", [torch.float32, torch.double])
def test_at_the_teacher_value_and_gradient_are_zero(
    objective: Objective, dtype: torch.dtype
) -> None:
    assert objective.is_zero_at_teacher
    z = logits(3).to(dtype)
    z[2] = 0.7  # constant: no variance
    z[:, 4] = z[0, 4]
    for temperature in (1.0, 3.0):
        target = target_of(z, temperature)
        value_N = objective(z + 1.3, target, temperature)  # logits are known up to a constant
        zeros = torch.zeros(6, dtype=dtype)
        torch.testing.assert_close(value_N, zeros, atol=2e-6, rtol=0)
        grad_NV = gradient(objective, z, target, temperature)
        torch.testing.assert_close(grad_NV, torch.zeros_like(grad_NV), atol=1e-5, rtol=0)


@objectives
def test_away_from_the_teacher_the_value_is_positive(objective: Objective) -> None:
    assert (objective(logits(1), target_of(logits(0), 2.0), 2.0) > 0).all()


@objectives
def test_only_objectives_that_say_so_couple_rows(objective: Objective) -> None:
    """The last row changes; the values of the others do so too, or not at all."""
    target, z_S = target_of(logits(0), 2.0), logits(1)
    other = z_S.clone()
    other[5] = logits(7)[5]
    before_N, after_N = objective(z_S, target, 2.0), objective(other, target, 2.0)
    assert objective.couples_rows == (not torch.equal(before_N[:5], after_N[:5]))
    at_tokens = objective.at_tokens()
    before_N, after_N = at_tokens(z_S, target, 2.0), at_tokens(other, target, 2.0)
    assert at_tokens.couples_rows == (not torch.equal(before_N[:5], after_N[:5]))


@objectives
def test_only_objectives_that_say_so_read_labels(objective: Objective) -> None:
    z_T, z_S = logits(0), logits(1)
    one = objective(z_S, target_of(z_T, 2.0), 2.0)
    other = objective(z_S, target_of(z_T, 2.0, LABELS_N.roll(1)), 2.0)
    assert objective.needs_labels == (not torch.equal(one, other))


@kinds
def test_elementwise_objectives_are_sums_over_parts_of_the_vocabulary(kind: str) -> None:
    objective = SINGLE[kind][0]
    target, logp_S = target_of(logits(0), 2.0), torch.log_softmax(logits(1) / 2, -1)
    if not objective.is_elementwise:
        with pytest.raises(NotImplementedError):
            objective.terms(target.logp_NV, logp_S)
        return
    parts = [objective.terms(target.logp_NV[:, at], logp_S[:, at]) for at in ([2, 0, 4], [3], [1])]
    torch.testing.assert_close(torch.cat(parts, 1).sum(1), objective(logits(1), target, 2.0))


@objectives
def test_the_coefficient_keeps_the_gradient_independent_of_a_high_temperature(
    objective: Objective,
) -> None:
    def scaled(temperature: float) -> Tensor:
        target = target_of(logits(0), temperature)
        found = gradient(objective, logits(1), target, temperature)
        return objective.coefficient(temperature) * found

    # Norms: without c(T) the gradients are tiny, and within any absolute tolerance of each other.
    low, high = scaled(500.0), scaled(1000.0)
    assert (low - high).norm() < 0.02 * high.norm() and high.norm() > 0.05


# Infinite where the teacher rules out what the student does not.
INFINITE = ("reverse_kl", "adaptive_kl")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in INFINITE])
@pytest.mark.parametrize("ruled_out", [-math.inf, LEFT_OUT])
def test_a_class_ruled_out_by_the_teacher_gives_finite_values(kind: str, ruled_out: float) -> None:
    z_T = torch.tensor([[5.0, 0.0, 1.0, ruled_out], [0.0, 5.0, ruled_out, ruled_out]])
    labels_N = torch.tensor([3, UNLABELLED])
    for z_S in (torch.zeros(2, 4), torch.randn(2, 4)):
        student = z_S.requires_grad_()
        value = SINGLE[kind][0](student, target_of(z_T, 1.0, labels_N), 1.0).sum()
        value.backward()
        assert value.isfinite() and student.grad is not None and student.grad.isfinite().all()


def test_a_teacher_certain_of_the_label_has_no_other_classes_to_compare() -> None:
    z_T = torch.tensor([[5.0, -math.inf, -math.inf]])
    student = torch.tensor([[1.0, 0.5, 0.0]], requires_grad=True)
    target = target_of(z_T, 1.0, torch.tensor([0]))
    value = Decoupled()(student, target, 1.0)
    torch.testing.assert_close(value, ForwardKL()(student, target, 1.0))
    value.sum().backward()
    assert student.grad is not None and student.grad.isfinite().all()


@pytest.mark.parametrize("skew", [0.0, 1e-6])
def test_without_skew_they_are_the_plain_divergences(skew: float) -> None:
    z_S, target = logits(1), target_of(logits(0), 2.0)
    for skewed, plain in (
        (SkewedForwardKL(skew=skew), ForwardKL()),
        (SkewedReverseKL(skew=skew), ReverseKL()),
    ):
        found = skewed(z_S, target, 2.0)
        torch.testing.assert_close(found, plain(z_S, target, 2.0), rtol=1e-4, atol=1e-6)


def test_decoupled_with_the_weight_of_the_forward_kl_is_the_forward_kl() -> None:
    z_S, target = logits(1), target_of(logits(0), 2.0)
    binary_N = Decoupled(beta=0)(z_S, target, 2.0)
    others_N = Decoupled(beta=1)(z_S, target, 2.0) - binary_N
    p_y_N = target.logp_NV.exp().gather(1, LABELS_N[:, None])[:, 0]
    torch.testing.assert_close(binary_N + (1 - p_y_N) * others_N, ForwardKL()(z_S, target, 2.0))


def test_decoupled_rows_without_a_label_take_the_targets_most_probable_class() -> None:
    z_T, z_S = logits(0), logits(1)
    top_N = z_T.argmax(1)
    expected = Decoupled()(z_S, target_of(z_T, 2.0, top_N), 2.0)
    assert torch.equal(Decoupled()(z_S, target_of(z_T, 2.0, None), 2.0), expected)
    some_N = torch.where(torch.arange(6) < 3, LABELS_N, UNLABELLED)
    found = Decoupled()(z_S, target_of(z_T, 2.0, some_N), 2.0)
    assert torch.equal(found[3:], expected[3:])
    assert torch.equal(found[:3], Decoupled()(z_S, target_of(z_T, 2.0), 2.0)[:3])


def test_dist_without_its_class_term_is_that_of_language_models() -> None:
    z_S, target = logits(1), target_of(logits(0), 2.0)
    rows_only = Dist(class_weight=0)
    assert Dist().at_tokens() == rows_only and not rows_only.couples_rows
    classes_only = Dist(row_weight=0)(z_S, target, 2.0)
    torch.testing.assert_close(classes_only, classes_only[:1].expand(6))
    both = Dist(row_weight=3, class_weight=0.5)(z_S, target, 2.0)
    torch.testing.assert_close(both, 3 * rows_only(z_S, target, 2.0) + 0.5 * classes_only)
    with pytest.raises(ValueError, match="row_weight and class_weight are both 0"):
        Dist(row_weight=0, class_weight=0)


@pytest.mark.parametrize("objective", [Dist(), Comparative()], ids=lambda o: o.type)
def test_a_batch_of_one_row_has_no_other_rows(objective: Objective) -> None:
    z_S = logits(1)[:1].requires_grad_()
    target = target_of(logits(0)[:1], 2.0, None)
    value_N = objective(z_S, target, 2.0)
    expected = Dist(class_weight=0)(z_S, target, 2.0) if objective.type == "dist" else 0 * value_N
    torch.testing.assert_close(value_N, expected)
    value_N.sum().backward()
    assert z_S.grad is not None and z_S.grad.isfinite().all()


@pytest.mark.parametrize("objective", [Dist(), Comparative()], ids=lambda o: o.type)
def test_no_row_at_all_is_an_empty_value(objective: Objective) -> None:
    empty = logits(1)[:0]
    assert objective(empty, target_of(empty, 2.0, None), 2.0).shape == (0,)


CORRELATIONS = [Cosine(), Dist(class_weight=0), CorrelationMatching(), RobustCorrelation()]


@pytest.mark.parametrize("objective", CORRELATIONS, ids=lambda o: o.type)
def test_constant_rows_are_neither_nan_nor_a_target(objective: Objective) -> None:
    """Of a constant target 0, of a constant student the whole distance; both without gradient."""
    constant, z = torch.full((1, 5), 0.3), logits(1).float()[:1]
    for z_T, z_S, expected in ((constant, z, 0.0), (z, constant, 1.0)):
        student = z_S.clone().requires_grad_()
        value = objective(student, target_of(z_T, 1.0, None), 1.0)
        value.sum().backward()
        weights = 2.0 if isinstance(objective, RobustCorrelation) else 1.0
        torch.testing.assert_close(value, torch.tensor([expected * weights]))
        assert student.grad is not None and not student.grad.any()


@pytest.mark.parametrize("objective", CORRELATIONS, ids=lambda o: o.type)
def test_two_classes_give_correlations_no_gradient(objective: Single) -> None:
    """Which is why they are refused there; three classes do."""
    for num_classes in (2, 3):
        z_S, target = logits(1, 6, num_classes), target_of(logits(0, 6, num_classes), 2.0, None)
        has_gradient = bool((gradient(objective, z_S, target, 2.0).abs() > 1e-9).any())
        assert has_gradient == (num_classes >= objective.min_classes)


def test_only_the_targets_most_probable_tokens_are_ranked() -> None:
    z_T, z_S = logits(0, 6, 9), logits(1, 6, 9)
    top_NK = z_T.topk(4, dim=1).indices
    for objective in (CorrelationMatching(top=4), RobustCorrelation(top=4)):
        found = objective(z_S, target_of(z_T, 2.0), 2.0)
        kept = objective(z_S.gather(1, top_NK), target_of(z_T.gather(1, top_NK), 2.0), 2.0)
        torch.testing.assert_close(found, kept)
        grad_NV = gradient(objective, z_S, target_of(z_T, 2.0), 2.0)
        rest_NV = grad_NV.scatter(1, top_NK, 0.0)
        # The other tokens are within the normaliser, which is a factor of the row.
        torch.testing.assert_close(rest_NV, torch.zeros_like(rest_NV), atol=1e-12, rtol=0)


def test_values_and_ranks_are_weighted() -> None:
    z_S, target = logits(1), target_of(logits(0), 2.0)
    values_N, ranks_N = RobustCorrelation().distances(z_S, target, 2.0)
    assert (values_N - ranks_N).abs().min() > 1e-3
    weighted = RobustCorrelation(value_weight=3.0, rank_weight=0.25)
    torch.testing.assert_close(weighted(z_S, target, 2.0), 3 * values_N + 0.25 * ranks_N)
    mixed = CorrelationMatching(value_weight=0.8)
    torch.testing.assert_close(mixed(z_S, target, 2.0), 0.8 * values_N + 0.2 * ranks_N)


def test_softness_is_the_scale_of_the_ranks() -> None:
    z_S, target = logits(1), target_of(logits(0), 2.0)
    sharp, soft = RobustCorrelation(softness=0.1), RobustCorrelation(softness=0.2)
    _, ranks_N = sharp.distances(z_S, target, 2.0)
    doubled = replace(target, logp_NV=2 * target.logp_NV)
    _, scaled_N = soft.distances(2 * z_S, doubled, 2.0)
    torch.testing.assert_close(ranks_N, scaled_N)
    assert (soft.distances(z_S, target, 2.0)[1] - ranks_N).abs().max() > 1e-6


def test_tokens_left_out_do_not_decide_the_cosine() -> None:
    z_T, z_S = logits(0), logits(1)
    both_T, both_S = z_T.clone(), z_S.clone()
    both_T[:, 1] = both_S[:, 1] = LEFT_OUT
    kept = [0, 2, 3, 4]
    for objective in (Cosine(), Comparative()):
        found = objective(both_S, target_of(both_T, 2.0), 2.0)
        expected = objective(z_S[:, kept], target_of(z_T[:, kept], 2.0), 2.0)
        torch.testing.assert_close(found, expected)


def test_a_mixture_of_probabilities_has_logits_too() -> None:
    """Up to a constant, which the cosine does not see: log Σ w_k p_k."""
    p = 0.4 * softmax(logits(0).numpy()) + 0.6 * softmax(logits(1).numpy())
    target = Target(torch.from_numpy(p).log(), torch.ones(1, 6))
    value_N = Cosine()(torch.from_numpy(np.log(p)) - 5, target, 1.0)
    torch.testing.assert_close(value_N, torch.zeros(6, dtype=torch.double))


SUMS = [
    weighted_sum((1, "forward_kl"), (0.1, "cosine")),
    weighted_sum((0.5, "jsd"), (2, "total_variation"), (1, "reverse_kl")),
    weighted_sum((3, "dist")),
]


@pytest.mark.parametrize("objective", SUMS, ids=lambda o: o.type)
def test_a_sum_is_the_sum_with_each_members_scale(objective: WeightedSum) -> None:
    temperature = 2.5
    target, z_S = target_of(logits(0), temperature), logits(1)
    expected, expected_grad = torch.zeros(6, dtype=torch.double), torch.zeros_like(z_S)
    for member in objective.root:
        factor = member.weight * SINGLE[member.type][2](temperature)
        expected += factor * member(z_S, target, temperature)
        expected_grad += factor * gradient(member, z_S, target, temperature)
    assert objective.coefficient(temperature) == 1
    torch.testing.assert_close(objective(z_S, target, temperature), expected)
    found = gradient(objective, z_S, target, temperature)
    torch.testing.assert_close(found, expected_grad)


def test_a_sum_has_the_flags_that_its_members_share() -> None:
    elementwise = weighted_sum((1, "forward_kl"), (1, "jsd"))
    assert elementwise.is_elementwise and elementwise.mixes and not elementwise.couples_rows
    coupled = weighted_sum((1, "forward_kl"), (1, "dist"))
    assert coupled.couples_rows and not coupled.is_elementwise and coupled.mixes
    assert not coupled.at_tokens().couples_rows
    assert weighted_sum((1, "forward_kl"), (1, "decoupled")).needs_labels
    assert not coupled.needs_labels and not coupled.crosses_tokenizers
    alone = weighted_sum((2, "uld"))
    assert alone.crosses_tokenizers and not alone.mixes
    assert weighted_sum((1, "forward_kl"), (0.1, "cosine")).type == "forward_kl + 0.1 cosine"
    with pytest.raises(ValueError, match="uld compares different vocabularies"):
        weighted_sum((1, "uld"), (1, "forward_kl"))


def test_a_weight_is_a_factor_of_a_single_objective_too() -> None:
    assert ForwardKL(weight=0.5).coefficient(2.0) == 2.0
    assert ForwardKL().coefficient(3.0) == 9.0


def test_kl_without_zeros_has_the_numbers_and_gradients_of_its_definition() -> None:
    """The shorter way, where no class is ruled out, is bit-identical to the longer one."""
    torch.manual_seed(0)
    logp = torch.randn(40, 50).log_softmax(-1)
    logq = torch.randn(40, 50).log_softmax(-1)
    ruled_out = logp.clone()
    ruled_out[:, 7] = -torch.inf

    def found(logp_NV: torch.Tensor) -> list[torch.Tensor]:
        inputs = logp_NV.clone().requires_grad_(), logq.clone().requires_grad_()
        value_NV = kl_terms(*inputs)
        return [value_NV.detach(), *torch.autograd.grad(value_NV.sum(), inputs)]

    for short, long in zip(found(logp), found(ruled_out), strict=True):
        others = torch.arange(50) != 7
        assert torch.equal(short[:, others], long[:, others])
        assert (long[:, 7] == 0).all() and (short[:, 7] != 0).all()
