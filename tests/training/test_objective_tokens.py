"""Objectives of language models: chunk by chunk as over all logits, with labels and two teachers.

Shape suffixes: N positions, V vocabulary, K teachers.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from distill.aggregation import FixedWeights, LearnedRouter, Uncertainty, UniformMean
from distill.errors import ConfigError
from distill.objectives import (
    AdaptiveKL,
    CorrelationMatching,
    Decoupled,
    Dist,
    ForwardKL,
    GeneralisedJSD,
    Objective,
    RobustCorrelation,
    WeightedSum,
)
from distill.objectives.log_softmax import log_softmax_at
from distill.records import Target
from distill.training.fused import Chunk, fused
from distill.wires import HiddenWire, SampledWire, TopKWire
from distill.wires.legality import check_mixing
from tests.objective_references import SINGLE, weighted_sum
from tests.training.test_token_loss import Case, N, V, target_of, with_gradients

OF_TOKENS = [
    objective
    for objective, _, _ in SINGLE.values()
    if objective.mixes and not objective.at_tokens().couples_rows
]
SUMS = [
    weighted_sum((1, "forward_kl"), (0.1, "cosine")),
    weighted_sum((0.5, "jsd"), (2, "total_variation")),  # elementwise
    weighted_sum((1, "dist"), (1, "decoupled"), (1, "r2kd")),
]
by_type = pytest.mark.parametrize("objective", [*OF_TOKENS, *SUMS], ids=lambda o: o.type)
ALL_KN = torch.ones(2, N, dtype=torch.bool)
SOME_KN = torch.stack([torch.arange(N) >= 6, torch.arange(N) % 3 != 0])
"""One position that nobody answered, and some that one teacher alone did."""


def case_of(objective: Objective, **changes: object) -> Case:
    aggregation = FixedWeights(weights=(0.3, 0.7))
    return replace(Case(objective, aggregation), **changes)  # type: ignore[arg-type]


def dense(case: Case, inputs: tuple[Tensor, Tensor, Tensor]) -> list[Tensor]:
    """All positions at once, with labels; autograd's own gradients."""
    hidden_NH, weight_VH, bias_V = inputs
    z_NV = (hidden_NH @ weight_VH.T + bias_V)[:, :V]
    target, kept_N = target_of(case)
    target = replace(target, labels_N=case.labels_N[kept_N])
    objective = case.objective.at_tokens()
    soft = objective(z_NV[kept_N], target, case.temperature).sum()
    hard = cross_entropy(z_NV, case.labels_N, reduction="sum")
    scaled = objective.coefficient(case.temperature) * soft
    return with_gradients(case.alpha * scaled + (1 - case.alpha) * hard, inputs)


@by_type
@pytest.mark.parametrize(
    ("chunk", "queried_KN"),
    [(Chunk(1), SOME_KN), (Chunk(5), SOME_KN), (Chunk(N, row_floats=10**6), ALL_KN)],
    ids=["1", "5", "all"],
)
def test_chunks_of_positions_give_the_loss_of_all(
    objective: Objective, chunk: Chunk, queried_KN: Tensor
) -> None:
    case = case_of(objective, queried_KN=queried_KN)
    inputs = case.student()
    expected = dense(case, inputs)
    found = with_gradients(fused(*inputs, case.loss(), chunk, num_columns=V), inputs)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)


@by_type
def test_only_elementwise_objectives_split_the_vocabulary(objective: Objective) -> None:
    case = case_of(objective)
    tight = case.loss().chunk(1e-4)
    assert (tight.columns is not None) == objective.is_elementwise
    if objective.is_elementwise:
        inputs = case.student()
        found = with_gradients(fused(*inputs, case.loss(), Chunk(5, 4), num_columns=V), inputs)
        torch.testing.assert_close(found, dense(case, inputs), rtol=1e-5, atol=1e-5)


@by_type
def test_two_teachers_are_mixed_first(objective: Objective) -> None:
    """``mix: divergences`` compares with each of them, and gives another loss."""
    case = case_of(objective, alpha=1.0)
    inputs = case.student()
    mixed = with_gradients(fused(*inputs, case.loss(), Chunk(5), num_columns=V), inputs)
    apart_case = replace(case, aggregation=FixedWeights(weights=(0.3, 0.7), mix="divergences"))
    apart = with_gradients(fused(*inputs, apart_case.loss(), Chunk(5), num_columns=V), inputs)
    z_NV = (inputs[0] @ inputs[1].T + inputs[2])[:, :V]
    own = objective.at_tokens()
    expected = torch.zeros((), dtype=torch.double)
    for weight, logits_NV in zip((0.3, 0.7), case.teachers()[0], strict=True):
        logp_NV = log_softmax_at(logits_NV, case.temperature)
        target = Target(logp_NV, torch.ones(1, N), case.labels_N)
        expected = expected + weight * own(z_NV, target, case.temperature).sum()
    expected = with_gradients(own.coefficient(case.temperature) * expected, inputs)
    torch.testing.assert_close(apart, expected, rtol=1e-4, atol=1e-5)
    # Of reverse KL and logits the gradients are equal, of dist nearly the values.
    assert any((m - a).norm() > 0.01 * a.norm() for m, a in zip(mixed, apart, strict=True))


@by_type
def test_each_teachers_own_divergence_is_reported(objective: Objective) -> None:
    case = case_of(objective)
    loss = case.loss()
    inputs = case.student()
    fused(*inputs, loss, Chunk(N), num_columns=V)
    # Position 0 of each teacher.
    z_NV = (inputs[0] @ inputs[1].T + inputs[2])[:, :V].detach()
    own = objective.at_tokens()
    for k, logits_NV in enumerate(case.teachers()[0]):
        logp_NV = log_softmax_at(logits_NV[:1], case.temperature)
        target = Target(logp_NV, torch.ones(1, 1), case.labels_N[:1])
        expected = own(z_NV[:1], target, case.temperature)[0]
        expected = (own.coefficient(case.temperature) * expected).float()
        torch.testing.assert_close(loss.sums.apart_K[k], expected, rtol=1e-3, atol=1e-4)


def test_decoupled_takes_the_next_token_as_the_label() -> None:
    case = case_of(Decoupled(), alpha=1.0)
    inputs = case.student()
    expected = dense(case, inputs)[0]
    target, _ = target_of(case)
    z_NV = (inputs[0] @ inputs[1].T + inputs[2])[:, :V]
    without = 4 * Decoupled()(z_NV, target, 2.0).sum()  # the target's most probable token
    found = fused(*inputs, case.loss(), Chunk(5), num_columns=V)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert abs(found - without) > 0.01 * abs(found)


def test_pairs_of_ranked_tokens_count_for_the_size_of_a_block() -> None:
    """[n, 64, 64] of a small vocabulary is much more than its logits."""
    assert case_of(CorrelationMatching()).loss().chunk(256).row_floats == 64**2
    assert case_of(weighted_sum((1, "forward_kl"), (1, "r2kd"))).loss().chunk(256).row_floats > 0
    assert case_of(ForwardKL()).loss().chunk(256).row_floats == 0


NOT_FORWARD = [
    *(objective for objective, _, _ in SINGLE.values() if objective.type != "forward_kl"),
    *SUMS,
    weighted_sum((1, "forward_kl"), (1, "jsd")),
]


@pytest.mark.parametrize("objective", NOT_FORWARD, ids=lambda o: o.type)
@pytest.mark.parametrize("wire", [TopKWire(), SampledWire()], ids=lambda w: w.type)
def test_truncated_wires_serve_the_forward_kl_alone(
    objective: Objective, wire: TopKWire | SampledWire
) -> None:
    others = [m for m in objective.members.items() if m[1].type != "forward_kl"]
    key, member = others[0]
    message = rf"wire: {wire.type} cannot serve {key}.type '{member.type}'.* use forward_kl"
    with pytest.raises(ConfigError, match=message):
        wire.check("teachers.a.wire", objective, [1.0])


def test_exact_wires_serve_every_objective() -> None:
    for objective in (*OF_TOKENS, *SUMS):
        HiddenWire().check("teachers.a.wire", objective, [1.0, 3.3])


def test_weights_from_all_logits_go_with_every_objective_that_mixes() -> None:
    exact = HiddenWire()
    mixing: list[Objective] = [AdaptiveKL(), Dist(), GeneralisedJSD(), RobustCorrelation(), *SUMS]
    for objective in mixing:
        check_mixing(Uncertainty(), [exact, exact], objective)
        check_mixing(LearnedRouter(), [exact, exact], objective)
        case = Case(objective, Uncertainty())
        assert case.loss().chunk(1e-4).columns is None
    with pytest.raises(ConfigError, match=r"'uld' compares the student with each teacher"):
        check_mixing(LearnedRouter(), [exact, exact], weighted_sum((1, "uld")))


def test_a_weighted_sum_of_one_is_the_objective_itself() -> None:
    alone = WeightedSum((ForwardKL(weight=0.5),))
    for chunk in (Chunk(5), Chunk(5, 4)):
        inputs = case_of(alone).student()
        found = [
            with_gradients(fused(*inputs, case_of(o).loss(), chunk, num_columns=V), inputs)
            for o in (alone, ForwardKL(weight=0.5))
        ]
        torch.testing.assert_close(*found)


def test_a_mean_of_teachers_in_probabilities_goes_with_every_objective() -> None:
    for objective in (AdaptiveKL(), CorrelationMatching()):
        case = replace(case_of(objective), aggregation=UniformMean(mix="probabilities"))
        inputs = case.student()
        found = with_gradients(fused(*inputs, case.loss(), Chunk(5), num_columns=V), inputs)
        torch.testing.assert_close(found, dense(case, inputs), rtol=1e-4, atol=2e-5)


def test_a_truncated_wire_serves_a_weighted_forward_kl() -> None:
    """Also as the only entry of a list, with its own scale; twice it does not."""
    wire = TopKWire(k=V, temperatures=(2.0,))
    found = []
    same: list[Objective] = [ForwardKL(weight=0.5), weighted_sum((0.5, "forward_kl"))]
    for objective in (ForwardKL(), *same):
        wire.check("teachers.a.wire", objective, [2.0])
        case = Case(objective, UniformMean(mix="probabilities"), alpha=1.0, wires=(wire, wire))
        inputs = case.student()
        found.append(fused(*inputs, case.loss(), Chunk(5), num_columns=V))
    torch.testing.assert_close(found[1], 0.5 * found[0])
    torch.testing.assert_close(found[2], found[1])
    with pytest.raises(ConfigError, match=r"topk cannot serve objective.type 'forward_kl \+ forw"):
        wire.check("teachers.a.wire", weighted_sum((1, "forward_kl"), (1, "forward_kl")), [2.0])
