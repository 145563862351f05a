"""What one gate chooses, weighs and reports, for logits given by hand.

Shape suffixes: n tokens, E experts, K chosen, L layers, H hidden.
"""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from distill.config.moe import (
    AllExperts,
    KnowledgeAugmentation,
    MoE,
    OwnRouting,
    StudentAwareRouter,
)
from distill.errors import ModelError, TeacherError
from distill.models.expert_gates import gate_info, gates_of
from distill.moe import draws
from distill.moe.gates import ExpertRouting, likeliest, usage_of, weights_of
from tests.moe.test_draws import in_sequence, uniform_of
from tests.sampling.test_draw import WORD, splitmix64
from tests.toys_language import llama
from tests.toys_moe import NUM_EXPERTS, OWN, mixture

EXPLORES, CHOOSES, NOISES = 0, 1, 2
"""Purposes of random numbers: a run of an older version draws the same."""
LOGITS = [2.0, 1.0, 0.5, 0.0]
NUM = 4_000
SEEDS_N = draws.token_seeds(3, 1, np.arange(NUM // 50), 50).flatten()


def routing_of(family: str = "mixtral", *logits: list[float]) -> ExpertRouting:
    """Gates whose logits are ``logits`` of their layer for the unit vector; 0 · W_n without it."""
    routing = ExpertRouting(mixture(family))
    with torch.no_grad():
        for gate, given in zip(routing.gates, logits or [LOGITS] * 2, strict=True):
            gate.own.weight.zero_()
            gate.own.weight[:, 0] = torch.tensor(given)
    return routing


def unit(num: int = NUM) -> Tensor:
    hidden_nH = torch.zeros(num, 24)
    hidden_nH[:, 0] = 1
    return hidden_nH


def chosen_by(
    routing: ExpertRouting, moe: MoE, layer: int = 0, seeds_n: Tensor = SEEDS_N
) -> tuple[Tensor, Tensor]:
    """Weights and experts [n, K]."""
    with torch.no_grad(), routing.asking(moe, seeds_n[None, :, None]):
        _, weights_nK, chosen_nK = routing.gates[layer](unit(len(seeds_n)))
    return weights_nK, chosen_nK


def left_out(chosen_nK: Tensor) -> Tensor:
    """[n]: of four experts the one that is not among the three chosen."""
    return 6 - chosen_nK.sum(1)


def odds_left_out() -> list[float]:
    """Of each expert, to be the last of four drawn without replacement by softmax(H)."""
    odds = [math.exp(z) for z in LOGITS]
    found = [0.0] * 4
    for i in range(4):
        for j in range(4):
            for k in range(4):
                if len({i, j, k}) == 3:
                    total = sum(odds)
                    p = odds[i] / total * odds[j] / (total - odds[i])
                    p *= odds[k] / (total - odds[i] - odds[j])
                    found[6 - i - j - k] += p
    return found


def assert_counts(counts: list[int], odds: list[float], num: int) -> None:
    """Each within 4.5 standard deviations of a binomial."""
    for count, p in zip(counts, odds, strict=True):
        assert abs(count - num * p) <= 4.5 * math.sqrt(num * p * (1 - p))


@pytest.mark.parametrize("explore", [0.0, 0.05, 0.3, 1.0])
def test_ka_draws_experts_by_softmax_of_h_with_probability_lambda(explore: float) -> None:
    """Else it takes the N − 1 most probable: P(e left out) = λ · P(e drawn last) + (1 − λ)[e]."""
    moe = KnowledgeAugmentation(explore=explore)
    _, chosen_nK = chosen_by(routing_of(), moe)
    assert chosen_nK.shape == (NUM, NUM_EXPERTS - 1)
    counts = left_out(chosen_nK).bincount(minlength=4).tolist()
    drawn = odds_left_out()
    expected = [explore * p + (1 - explore) * (e == 3) for e, p in enumerate(drawn)]
    assert_counts(counts, expected, NUM)
    # What the bounds would show: half of λ, and experts drawn uniformly.
    for wrong in (
        [explore / 2 * p + (1 - explore / 2) * (e == 3) for e, p in enumerate(drawn)],
        [explore / 4 + (1 - explore) * (e == 3) for e in range(4)],
    ):
        if explore >= 0.3:
            with pytest.raises(AssertionError):
                assert_counts(counts, wrong, NUM)


def test_ka_at_its_default_lambda_explores_one_token_in_twenty() -> None:
    """Of 40,000: half of λ would be 16 standard deviations away."""
    seeds_n = draws.token_seeds(5, 1, np.arange(400), 100).flatten()
    _, chosen_nK = chosen_by(routing_of(), KnowledgeAugmentation(), seeds_n=seeds_n)
    share = 0.05 * (1 - odds_left_out()[3])
    count = int((left_out(chosen_nK) != 3).sum())
    assert_counts([count], [share], len(seeds_n))
    with pytest.raises(AssertionError):
        assert_counts([count], [share / 2], len(seeds_n))


def test_ka_draws_in_each_layer_and_pass_independently() -> None:
    """Two layers, or passes, leave out others than the least probable as often together as the
    product of their shares says."""
    moe, routing = KnowledgeAugmentation(explore=1.0), routing_of()
    p = 1 - odds_left_out()[3]
    passes_MN = draws.token_seeds(3, 2, np.arange(NUM // 50), 50).flatten(1)
    others = [
        left_out(chosen_by(routing, moe, layer, seeds_n)[1]) != 3
        for layer, seeds_n in ((0, passes_MN[0]), (1, passes_MN[0]), (0, passes_MN[1]))
    ]
    for other in others[1:]:
        assert_counts([int((others[0] & other).sum())], [p * p], NUM)
    explores = KnowledgeAugmentation(explore=0.5)
    least = [left_out(chosen_by(routing, explores, layer)[1]) != 3 for layer in (0, 1)]
    assert_counts([int((least[0] & least[1]).sum())], [(0.5 * p) ** 2], NUM)


def purpose_seed(token_seed: int, layer: int, purpose: int) -> int:
    return splitmix64((splitmix64((token_seed + layer) % WORD) + purpose) % WORD)


def test_ka_is_the_definition_token_by_token() -> None:
    logits = [[0.3, -0.2, 1.0, 0.1], [0.0, 2.0, -1.0, 0.5]]
    routing, num = routing_of("mixtral", *logits), 300
    for layer in (0, 1):
        for count, explore in ((1, 0.6), (2, 0.4), (4, 0.5)):
            moe = KnowledgeAugmentation(explore=explore, experts=count)
            weights_nK, chosen_nK = chosen_by(routing, moe, layer, SEEDS_N[:num])
            given = logits[layer]
            for token, (weights, chosen) in enumerate(
                zip(weights_nK.tolist(), chosen_nK.tolist(), strict=True)
            ):
                seed = int(SEEDS_N[token])
                expected = sorted(range(4), key=lambda e: -given[e])[:count]
                if uniform_of(purpose_seed(seed, layer, EXPLORES), 0) < explore:
                    of_choice = purpose_seed(seed, layer, CHOOSES)
                    numbers = [uniform_of(of_choice, e) for e in range(4)]
                    expected = in_sequence(given, numbers, count)
                assert chosen == expected
                total = sum(math.exp(given[e]) for e in chosen)
                assert weights == pytest.approx([math.exp(given[e]) / total for e in chosen])


def test_weights_of_a_family_that_does_not_renormalise_stay_as_they_are() -> None:
    weights_nK, chosen_nK = chosen_by(routing_of("olmoe"), KnowledgeAugmentation(explore=0.5))
    total = sum(math.exp(z) for z in LOGITS)
    probs_E = torch.tensor([math.exp(z) / total for z in LOGITS])
    torch.testing.assert_close(weights_nK, probs_E[chosen_nK])


def test_weights_by_rule() -> None:
    logits_nE = torch.tensor([LOGITS, LOGITS[::-1]])
    chosen_nK = torch.tensor([[0, 1], [2, 3]])
    odds = [math.exp(z) for z in LOGITS]
    kept = torch.tensor([[odds[0], odds[1]], [odds[1], odds[0]]]) / sum(odds)
    torch.testing.assert_close(weights_of("kept", logits_nE, chosen_nK), kept)
    ones = kept / kept.sum(1, keepdim=True)
    torch.testing.assert_close(weights_of("renormalised", logits_nE, chosen_nK), ones)
    torch.testing.assert_close(weights_of("of_chosen", logits_nE, chosen_nK), ones)
    for rule in ("kept", "renormalised", "of_chosen"):
        assert likeliest(rule, logits_nE, 2).tolist() == [[0, 1], [3, 2]]
    # Logits whose probabilities are equal: the family that compares probabilities takes the first.
    close_nE = torch.tensor([[0.0, 1e-9, -50.0]])
    assert likeliest("of_chosen", close_nE, 1).tolist() == [[1]]
    for rule in ("kept", "renormalised"):
        assert likeliest(rule, close_nE, 1).tolist() == [[0]]


def noise_of(spreads: list[float], layer: int = 0, moe: MoE | None = None) -> Tensor:
    """[n, E]: (noisy H − H) of all experts against the first, by weights that are softmax(H).

    ``spreads``: W_n x of each expert.
    """
    routing = routing_of()
    with torch.no_grad():
        for gate in routing.gates:
            gate.noise_weight[:, 0] = torch.tensor(spreads)
        with routing.asking(moe or StudentAwareRouter(), SEEDS_N[None, :, None], is_noisy=True):
            _, weights_nK, chosen_nK = routing.gates[layer](unit())
    logits_nE = torch.empty(NUM, 4).scatter(1, chosen_nK, weights_nK.log())
    return (logits_nE - logits_nE[:, :1]) - (torch.tensor(LOGITS) - LOGITS[0])


@pytest.mark.parametrize("spreads", [[0.0] * 4, [-40.0] * 4, [-40.0, 0.5, 2.0, -1.0]], ids=str)
def test_noise_has_the_spread_softplus_of_w_n_x_plus_a_hundredth(spreads: list[float]) -> None:
    """Where softplus is 0 the hundredth is all there is. Standard deviations of 4,000 numbers are
    within 5 standard errors (5.6 %) of theirs."""
    found = noise_of(spreads)
    sigma = [math.log1p(math.exp(z)) + 0.01 for z in spreads]
    for e in (1, 2, 3):
        expected = math.hypot(sigma[e], sigma[0])
        error = 5 / math.sqrt(2 * NUM)
        assert float(found[:, e].std()) == pytest.approx(expected, rel=error)
        assert abs(float(found[:, e].mean())) < 5 * expected / math.sqrt(NUM)


def test_noise_is_the_definition_token_by_token() -> None:
    quantile = NormalDist().inv_cdf
    spread = math.log(2) + 0.01
    for layer in (0, 1):
        found = noise_of([0.0] * 4, layer)
        for token in range(0, NUM, 40):
            seed = purpose_seed(int(SEEDS_N[token]), layer, NOISES)
            noise = [spread * quantile(uniform_of(seed, e)) for e in range(4)]
            expected = [n - noise[0] for n in noise]
            assert found[token].tolist() == pytest.approx(expected, abs=2e-5)


def test_noise_is_of_each_token_of_rows_too() -> None:
    """A family may give its gates whole rows [B, T, H]."""
    routing, moe = routing_of(), StudentAwareRouter()
    hidden_nH = unit(12) * torch.linspace(0.5, 2, 12)[:, None]
    found = []
    for shape in ((12, 24), (3, 4, 24)):
        with torch.no_grad(), routing.asking(moe, SEEDS_N[None, :12, None], is_noisy=True):
            found.append(routing.gates[0](hidden_nH.view(shape)))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_noise_acts_on_what_ka_chooses_and_is_never_in_the_models_own_routing() -> None:
    noisy = KnowledgeAugmentation(explore=0, experts=2, noise=True)
    routing = routing_of()
    with torch.no_grad(), routing.asking(noisy, SEEDS_N[None, :, None], is_noisy=True):
        logits_nE, _, chosen_nK = routing.gates[0](unit())
    assert float((chosen_nK.sort(1).values != torch.tensor([0, 1])).any(1).double().mean()) > 0.2
    torch.testing.assert_close(logits_nE, torch.tensor(LOGITS).expand(NUM, -1))
    with torch.no_grad(), routing.asking(OwnRouting(), SEEDS_N[None, :, None], is_noisy=True):
        _, weights_nK, chosen_nK = routing.gates[0](unit())
    assert chosen_nK.tolist() == [[0, 1]] * NUM and len(weights_nK.unique(dim=0)) == 1


def test_all_experts_are_weighted_by_softmax_of_h() -> None:
    for moe in (AllExperts(), StudentAwareRouter()):
        weights_nK, chosen_nK = chosen_by(routing_of(), moe, seeds_n=SEEDS_N[:3])
        assert chosen_nK.tolist() == [[0, 1, 2, 3]] * 3
        expected = torch.tensor(LOGITS).softmax(0).expand(3, -1)
        torch.testing.assert_close(weights_nK, expected)


def test_usage_counts_the_tokens_that_matter_in_every_pass() -> None:
    """Of six tokens two do not count; of two passes both do."""
    routing, moe = routing_of(), KnowledgeAugmentation(explore=0.5, experts=2)
    counted_BT = torch.tensor([[True, False, True], [True, True, False]])
    seeds_MBT = draws.token_seeds(1, 2, np.arange(2), 3)
    with torch.no_grad(), routing.asking(moe, seeds_MBT, counted_BT) as now:
        chosen = [gate(unit(12))[2] for gate in routing.gates]
        usage = usage_of(now)
        assert now.importance_LE == []
    counted_n = counted_BT.flatten().repeat(2)
    assert usage.num_tokens == 8
    expected = [c[counted_n].flatten().bincount(minlength=4).tolist() for c in chosen]
    assert usage.tokens_LE.tolist() == expected and usage.tokens_LE.sum() == 2 * 2 * 8
    # The mass outside the model's own two, whichever are chosen.
    odds = [math.exp(z) for z in LOGITS]
    outside = 8 * (1 - (odds[0] + odds[1]) / sum(odds))
    assert usage.silent_mass_L.tolist() == pytest.approx([outside] * 2, rel=1e-6)


def test_importance_is_the_sum_of_weights_over_the_counted_tokens() -> None:
    routing = routing_of()
    moe = KnowledgeAugmentation(passes=1, explore=0.5, experts=2)
    counted_BT = torch.tensor([[True, False, True, True]])
    seeds_MBT = draws.token_seeds(1, 1, np.arange(1), 4)
    with routing.asking(moe, seeds_MBT, counted_BT) as now:
        routing.gates[0].own.weight.requires_grad_(True)
        _, weights_nK, chosen_nK = routing.gates[0](unit(4))
        (importance_E,) = now.importance_LE
    expected = torch.zeros(4)
    for token in (0, 2, 3):
        for place in range(2):
            expected[chosen_nK[token, place]] += weights_nK[token, place].detach()
    torch.testing.assert_close(importance_E.detach(), expected)
    assert importance_E.requires_grad and float(importance_E.sum().detach()) == pytest.approx(3)


@pytest.mark.parametrize("family", ["mixtral", "qwen2", "olmoe"])
def test_a_bfloat16_gate_keeps_its_dtypes(family: str) -> None:
    """Weights as the family gives them, and their sums in float32."""
    model = mixture(family).bfloat16()
    routing = ExpertRouting(model)
    hidden_nH = torch.randn(40, 24, generator=torch.Generator().manual_seed(0)).bfloat16()
    own_weights_nK = routing.gates[0].own(hidden_nH)[1]
    moe = KnowledgeAugmentation(passes=1, explore=0, experts=OWN)
    seeds_MBT, counted_BT = SEEDS_N[None, :40, None], torch.ones(40, 1, dtype=torch.bool)
    with routing.asking(moe, seeds_MBT, counted_BT) as now:
        weights_nK = routing.gates[0](hidden_nH)[1]
        (importance_E,) = now.importance_LE
    assert weights_nK.dtype == own_weights_nK.dtype and torch.equal(weights_nK, own_weights_nK)
    assert importance_E.dtype == torch.float32
    assert float(importance_E.sum().detach()) == pytest.approx(float(weights_nK.float().sum()))


def test_a_routing_holds_within_and_is_undone_afterwards() -> None:
    routing = routing_of()
    own = routing.gates[0](unit(2))[2].tolist()
    assert own == [[0, 1]] * 2
    with routing.asking(AllExperts()):
        assert routing.gates[0](unit(2))[2].shape == (2, 4)
        with routing.asking(OwnRouting()):
            assert routing.gates[1](unit(2))[2].tolist() == own
        assert routing.gates[1](unit(2))[2].shape == (2, 4)
    assert routing.gates[0](unit(2))[2].tolist() == own
    with pytest.raises(ValueError, match="broken"), routing.asking(AllExperts()):
        raise ValueError("broken")
    assert routing.gates[0](unit(2))[2].tolist() == own
    assert routing.under_way.counted_n is None and routing.under_way.chosen_LE == []


def test_other_gates_hold_within_and_the_models_own_come_back() -> None:
    routing = ExpertRouting(mixture())
    first = routing.first
    assert first.version == 0 and first.values.dtype == np.float32
    assert len(first.values) == routing.num_values == 2 * 2 * 4 * 24
    flat = [p.detach().flatten() for gate in routing.gates for p in gate.parameters()]
    assert np.array_equal(first.values, torch.cat(flat).numpy())
    other = replace(first, version=3, values=np.arange(len(first.values), dtype=np.float32))
    with routing.having(other):
        here = torch.cat([p.detach().flatten() for p in routing.parameters])
        assert here.tolist() == list(range(len(first.values)))
    for state in (None, first):
        with routing.having(state):
            now = torch.cat([p.detach().flatten() for p in routing.parameters])
            assert np.array_equal(now.numpy(), first.values)
    with pytest.raises(ValueError, match="broken"), routing.having(other):
        raise ValueError("broken")
    now = torch.cat([p.detach().flatten() for p in routing.parameters])
    assert np.array_equal(now.numpy(), first.values)
    with pytest.raises(TeacherError, match="a gate of another shape"):
        routing._put(replace(other, shapes="x"))


def test_w_n_starts_at_0_and_only_gates_are_parameters() -> None:
    routing = ExpertRouting(mixture())
    names = [name for gate in routing.gates for name, _ in gate.named_parameters()]
    assert names == ["noise_weight", "own.weight"] * 2
    for gate in routing.gates:
        assert gate.noise_weight.shape == gate.own.weight.shape == (4, 24)
        assert not gate.noise_weight.any() and not gate.noise_weight.requires_grad


def test_gates_are_wrapped_once_and_numbered_by_layer() -> None:
    model = mixture()
    routing = ExpertRouting.of(model)
    assert ExpertRouting.of(model) is routing
    assert [gate.layer for gate in routing.gates] == [0, 1]
    assert (routing.num_experts, routing.own) == (NUM_EXPERTS, OWN)
    same, other = ExpertRouting(mixture()), ExpertRouting(mixture(num_layers=1))
    assert same.shapes == routing.shapes != other.shapes and len(same.shapes) == 16


def test_gate_info_of_mixtures_and_of_dense_models() -> None:
    info = gate_info(mixture(own=3))
    assert info is not None and (info.num_experts, info.own) == (4, 3)
    assert [name for _, name in gates_of(mixture())] == ["gate", "gate"]
    assert gate_info(llama(0)) is None and gates_of(llama(0)) == []


class Doctored(torch.nn.Module):
    """A gate whose outputs are changed on the way out."""

    def __init__(self, own: Any, change: Any) -> None:
        super().__init__()
        self.own, self.change = own, change
        self.weight, self.top_k = own.weight, own.top_k

    def forward(self, hidden: Tensor) -> Any:
        return self.change(*self.own(hidden))


@pytest.mark.parametrize(
    "change",
    [
        lambda logits, weights, chosen: (logits, 2 * weights, chosen),
        lambda logits, weights, chosen: (logits, weights, chosen.flip(1)),
        lambda logits, weights, chosen: (logits + 1e-3 * logits**2, weights, chosen),
        lambda logits, weights, chosen: (logits[None], weights, chosen),
        lambda logits, weights, chosen: [logits, weights, chosen],
        lambda logits, weights, chosen: (logits, torch.cat([weights, weights], 1), chosen),
    ],
)
def test_a_router_of_another_kind_is_refused(change: Any) -> None:
    model: Any = mixture()
    for parent, name in gates_of(model):
        setattr(parent, name, Doctored(getattr(parent, name), change))
    with pytest.raises(ModelError, match="router of a mixtral model"):
        ExpertRouting(model)


def test_a_router_that_weighs_by_softmax_of_the_chosen_logits_is_known() -> None:
    """The weights of ``renormalised`` in other bits."""

    def of_chosen(logits_nE: Tensor, _: Tensor, __: Tensor) -> Any:
        chosen_nK = logits_nE.topk(OWN, dim=1).indices
        return logits_nE, logits_nE.gather(1, chosen_nK).softmax(1), chosen_nK

    model: Any = mixture()
    for parent, name in gates_of(model):
        setattr(parent, name, Doctored(getattr(parent, name), of_chosen))
    routing = ExpertRouting(model)
    assert [gate.rule for gate in routing.gates] == ["of_chosen"] * 2
    assert [gate.rule for gate in ExpertRouting(mixture()).gates] == ["renormalised"] * 2
    assert [gate.rule for gate in ExpertRouting(mixture("olmoe")).gates] == ["kept"] * 2


class Part(torch.nn.Module):
    """A layer with experts and something called ``name``."""

    def __init__(self, name: str, gate: Any, has_experts: bool = True) -> None:
        super().__init__()
        if has_experts:
            self.experts = torch.nn.Identity()
        setattr(self, name, gate)


def gate_like(shape: tuple[int, ...] | None, top_k: Any) -> torch.nn.Module:
    module = torch.nn.Module()
    if shape is not None:
        module.weight = torch.nn.Parameter(torch.zeros(shape))
    module.top_k = top_k
    return module


def test_a_gate_is_a_module_beside_experts_with_a_matrix_and_a_k() -> None:
    model: Any = llama(0)
    layer = model.model.layers[0]
    for name in ("gate", "router"):
        layer.part = Part(name, gate_like((4, 8), 2))
        assert gates_of(model) == [(layer.part, name)]
        info = gate_info(model)
        assert info is not None and (info.num_experts, info.own) == (4, 2)
    for part in (
        Part("gate", gate_like((4, 8), 2), has_experts=False),
        Part("gate", gate_like((4, 8), None)),
        Part("gate", gate_like((4,), 2)),
        Part("gate", gate_like(None, 2)),
        Part("gate", torch.nn.Linear(8, 4)),
        Part("gate", None),
        Part("gates", gate_like((4, 8), 2)),
        Part("gate", np.zeros((4, 8))),
    ):
        layer.part = part
        assert gates_of(model) == [] and gate_info(model) is None


def test_a_gate_hands_on_all_that_it_is_given() -> None:
    routing, given = routing_of(), []

    class Noting(torch.nn.Module):
        def forward(self, *args: Any, **named: Any) -> Any:
            given.append((args[1:], named))
            return torch.zeros(1, 4), torch.ones(1, 2), torch.tensor([[0, 1]])

    routing.gates[0].own = Noting()
    routing.gates[0](unit(1), 3, "x", mask=None)
    assert given == [((3, "x"), {"mask": None})]


def test_defaults_of_ka_and_sar_are_those_of_the_methods() -> None:
    """KA: M = 2, λ = 0.05, K = N − 1, no noise. SAR: β = 0.01, rate 1e-6, weight decay 0.01."""
    assert KnowledgeAugmentation().model_dump() == {
        "type": "ka",
        "passes": 2,
        "explore": 0.05,
        "experts": None,
        "noise": False,
    }
    assert StudentAwareRouter().model_dump() == {
        "type": "sar",
        "balance": 0.01,
        "lr": 1e-6,
        "weight_decay": 0.01,
        "noise": True,
    }
    assert KnowledgeAugmentation().num_chosen(2, 8) == 7 and KnowledgeAugmentation().num_passes == 2
    assert KnowledgeAugmentation(experts=3, passes=5).num_chosen(2, 8) == 3
    assert AllExperts().num_chosen(2, 8) == StudentAwareRouter().num_chosen(2, 8) == 8
    assert OwnRouting().num_chosen(2, 8) == 2 and OwnRouting().num_passes == 1
