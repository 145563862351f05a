"""Weights sum to one over whoever answered; one teacher is no aggregation; each rule is its own."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from distill.aggregation import (
    Aggregation,
    Attention,
    FixedWeights,
    LearnedRouter,
    OracleDomain,
    Routed,
    Single,
    Uncertainty,
    UniformMean,
)
from distill.aggregation.mixture import mix
from distill.errors import ConfigError
from distill.records import RoutingInputs, TeacherAnswers

K, B, V, H = 3, 6, 4, 8


def answers(num_teachers: int = K, seed: int = 0, all_teachers: bool = False) -> TeacherAnswers:
    generator = torch.Generator().manual_seed(seed)
    queried_KB = torch.rand(num_teachers, B, generator=generator) < 0.6
    queried_KB[0] = True
    if all_teachers:
        queried_KB[:] = True
    logits_KBV = 2 * torch.randn(num_teachers, B, V, generator=generator) * queried_KB[..., None]
    router_BK = torch.randn(B, num_teachers, generator=generator)
    return TeacherAnswers(logits_KBV, queried_KB, router_BK)


def all_of(num_teachers: int) -> list[Aggregation]:
    return [
        UniformMean(),
        UniformMean(mix="probabilities"),
        FixedWeights(weights=tuple(range(1, num_teachers + 1))),
        Routed(k="all"),
        Routed(k="all", mix="probabilities"),
        Uncertainty(),
        Uncertainty(is_hard=True),
        Attention(dropout=0),
        LearnedRouter(),
    ]


def weigh(aggregation: Aggregation, payloads: TeacherAnswers) -> torch.Tensor:
    module = aggregation.build(payloads.logits_KBV.shape[0], V, H)
    return aggregation.weigh(payloads, torch.randn(B, H), module).weights_KB


@pytest.mark.parametrize("aggregation", all_of(K), ids=lambda a: f"{a.type}-{a.mix}")
def test_weights_sum_to_one_and_silent_teachers_have_none(aggregation: Aggregation) -> None:
    payloads = answers()
    weights_KB = weigh(aggregation, payloads)
    torch.testing.assert_close(weights_KB.sum(0), torch.ones(B))
    assert (weights_KB[~payloads.queried_KB] == 0).all() and (weights_KB >= 0).all()


@pytest.mark.parametrize("aggregation", all_of(1), ids=lambda a: f"{a.type}-{a.mix}")
def test_one_teacher_is_no_aggregation(aggregation: Aggregation) -> None:
    payloads = answers(1)
    target = aggregation.target(payloads, weigh(aggregation, payloads), 2.0)
    torch.testing.assert_close(target.logp_NV, torch.log_softmax(payloads.logits_KBV[0] / 2, -1))


@pytest.mark.parametrize("aggregation", all_of(K), ids=lambda a: f"{a.type}-{a.mix}")
def test_teachers_that_agree_are_their_mixture(aggregation: Aggregation) -> None:
    one = answers(1, all_teachers=True).logits_KBV
    payloads = TeacherAnswers(
        one.expand(K, B, V), torch.ones(K, B, dtype=torch.bool), torch.randn(B, K)
    )
    target = aggregation.target(payloads, weigh(aggregation, payloads), 3.0)
    torch.testing.assert_close(target.logp_NV, torch.log_softmax(one[0] / 3, -1))


def test_mixing_spaces_are_their_definitions() -> None:
    payloads = answers(all_teachers=True)
    weights_KB = torch.rand(K, B).softmax(0)
    z_BV = sum(weights_KB[k][:, None] * payloads.logits_KBV[k] for k in range(K))
    p_BV = sum(weights_KB[k][:, None] * (payloads.logits_KBV[k] / 2).softmax(-1) for k in range(K))
    in_logits = mix(payloads.logits_KBV, weights_KB, 2.0, "logits").logp_NV
    in_probabilities = mix(payloads.logits_KBV, weights_KB, 2.0, "probabilities").logp_NV
    torch.testing.assert_close(in_logits.exp(), (z_BV / 2).softmax(-1))
    torch.testing.assert_close(in_probabilities.exp(), p_BV)


def test_routed_asks_the_top_k_and_renormalises() -> None:
    router_BK = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, 5.0], [1.0, 1.0, 1.0]])
    routed = Routed(k=2)
    queried_KB = routed.choose(RoutingInputs(("a", "b", "c"), torch.full((3,), -1), router_BK))
    assert queried_KB.T.tolist() == [[True, True, False], [True, False, True], [True, True, False]]
    payloads = TeacherAnswers(torch.zeros(3, 3, V), queried_KB, router_BK)
    weights_KB = routed.weigh(payloads, None, None).weights_KB
    e = math.e
    torch.testing.assert_close(weights_KB[:, 0], torch.tensor([e / (e + 1), 1 / (e + 1), 0.0]))


def test_one_alone_is_asked_and_has_all_the_weight() -> None:
    inputs = RoutingInputs(("a", "b", "c"), torch.tensor([2, 0, 0, 1, 2, 1]))
    payloads = answers(all_teachers=True)
    for aggregation, want_B in (
        (Single(teacher="b"), [1] * B),
        (OracleDomain(mix="probabilities"), [2, 0, 0, 1, 2, 1]),
    ):
        queried_KB = aggregation.choose(inputs)
        assert (
            queried_KB.sum(0).tolist() == [1] * B and queried_KB.int().argmax(0).tolist() == want_B
        )
        cut = TeacherAnswers(payloads.logits_KBV, queried_KB)
        weights_KB = aggregation.weigh(cut, None, None).weights_KB
        assert torch.equal(weights_KB, queried_KB.float())
        target = aggregation.target(cut, weights_KB, 2.0)
        alone_BV = payloads.logits_KBV[torch.tensor(want_B), torch.arange(B)]
        torch.testing.assert_close(target.logp_NV, torch.log_softmax(alone_BV / 2, -1))
        assert aggregation.querying_all().choose(inputs).all()


def uncertainty(payloads: TeacherAnswers, tau: float) -> np.ndarray:
    """[K, B]: softmax over the queried teachers of (1 − H / log V) / τ, row by row."""
    logits_KBV = payloads.logits_KBV.double().numpy()
    weights_KB = np.zeros(logits_KBV.shape[:2])
    for b in range(logits_KBV.shape[1]):
        queried = np.flatnonzero(payloads.queried_KB[:, b])
        sureness = []
        for k in queried:
            p = np.exp(logits_KBV[k, b] - np.logaddexp.reduce(logits_KBV[k, b]))
            sureness.append(1 + sum(q * math.log(q) for q in p) / math.log(len(p)))
        scores = np.exp(np.array(sureness) / tau)
        weights_KB[queried, b] = scores / scores.sum()
    return weights_KB


@pytest.mark.parametrize("num_classes", [2, V])
def test_uncertainty_weighs_by_the_normalised_entropy_over_tau(num_classes: int) -> None:
    payloads = answers()
    payloads = replace(payloads, logits_KBV=payloads.logits_KBV[..., :num_classes])
    for aggregation, tau in ((Uncertainty(), 0.2), (Uncertainty(tau=0.7), 0.7)):
        found_KB = aggregation.weigh(payloads, None, None).weights_KB
        np.testing.assert_allclose(found_KB, uncertainty(payloads, tau), rtol=1e-4, atol=1e-6)


def test_the_sureness_of_half_the_classes_is_half() -> None:
    """1 − log 2 / log 4; of all classes 0: with τ = ½ the weights are e : 1."""
    pair, full = torch.tensor([30.0, 30.0, 0, 0]), torch.zeros(4)
    payloads = TeacherAnswers(
        torch.stack([pair, full])[:, None], torch.ones(2, 1, dtype=torch.bool)
    )
    weights_KB = Uncertainty(tau=0.5).weigh(payloads, None, None).weights_KB
    torch.testing.assert_close(weights_KB[0] / weights_KB[1], torch.tensor([math.e]))


def test_hard_uncertainty_takes_the_teacher_with_the_lowest_entropy_of_those_queried() -> None:
    payloads = answers()
    soft_KB = uncertainty(payloads, 0.2)
    hard_KB = Uncertainty(is_hard=True).weigh(payloads, None, None).weights_KB
    assert hard_KB.argmax(0).tolist() == soft_KB.argmax(0).tolist()
    assert len(set(hard_KB.argmax(0).tolist())) > 1
    assert torch.equal(hard_KB.sum(0), torch.ones(B)) and (hard_KB.max(0).values == 1).all()


def test_attention_starts_as_the_mean_and_reads_its_input_without_gradient() -> None:
    torch.manual_seed(0)
    payloads = answers()
    attention = Attention(dropout=0)
    module = attention.build(K, V, H)
    features_BH = torch.randn(B, H, requires_grad=True)
    start = attention.weigh(payloads, features_BH, module)
    mean_KB = UniformMean().weigh(payloads, None, None).weights_KB
    torch.testing.assert_close(start.weights_KB, mean_KB)
    for param in module.parameters():
        nn.init.normal_(param)
    weights_KB, log_weights_KB = attention.weigh(payloads, features_BH, module)
    assert log_weights_KB is not None and not weights_KB.requires_grad
    torch.testing.assert_close(log_weights_KB.exp(), weights_KB)
    scores_BK = module(features_BH).detach()
    assert scores_BK.std(0).min() > 0.5, "rows differ in their scores"
    for b in range(B):
        queried = payloads.queried_KB[:, b]
        torch.testing.assert_close(weights_KB[queried, b], scores_BK[b, queried].softmax(0))
        assert not weights_KB[~queried, b].any()
    log_weights_KB[0].sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
    assert features_BH.grad is None


def test_a_learned_router_is_a_linear_map_of_the_normalised_features() -> None:
    """softmax(W · norm(h) + b), row by row; without training the uniform mean."""
    payloads, learned = answers(all_teachers=True), LearnedRouter()
    module: Any = learned.build(K, V, H)
    features_BH = 3 + 2 * torch.randn(B, H)
    start_KB = learned.weigh(payloads, features_BH, module).weights_KB
    torch.testing.assert_close(start_KB, torch.full((K, B), 1 / K))
    weight_KH, bias_K = torch.randn(K, H), torch.randn(K)
    score = module[1]
    with torch.no_grad():
        score.weight.copy_(weight_KH)
        score.bias.copy_(bias_K)
    found_KB = learned.weigh(payloads, features_BH, module).weights_KB
    for b, h_H in enumerate(features_BH):
        normed_H = (h_H - h_H.mean()) / (h_H.var(unbiased=False) + 1e-5).sqrt()
        expected_K = (weight_KH @ normed_H + bias_K).softmax(0)
        torch.testing.assert_close(found_KB[:, b], expected_K, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pools", [True, False])
def test_a_sequences_weights_are_those_of_its_mean_position(pools: bool) -> None:
    """Sequences of 3, 1 and 2 positions; without gradient to the hidden states."""
    learned = LearnedRouter(per="sample" if pools else "token")
    module = learned.build(K, V, H)
    for param in module.parameters():
        nn.init.normal_(param)
    hidden_NH = torch.randn(6, H, requires_grad=True)
    sequences_N = torch.tensor([4, 4, 4, 5, 7, 7])
    found_KN = learned.log_weights(module, hidden_NH, sequences_N)
    for n in range(6):
        own = sequences_N == sequences_N[n] if pools else torch.arange(6) == n
        expected_K = module(hidden_NH[own].mean(0)[None])[0].log_softmax(0)
        torch.testing.assert_close(found_KN[:, n], expected_K)
    found_KN[0].sum().backward()
    assert hidden_NH.grad is None


def test_defaults_are_the_papers_and_the_documented_ones() -> None:
    """MUKI: softmax(w / 0.2). HPM-KD: hidden 128, dropout 0.2, β 0.01. MoEKD: top 2 of the logits.
    Attention, the learned router and MUKI mix probabilities."""
    attention, routed = Attention(), Routed()
    assert (Uncertainty().tau, Uncertainty().is_hard) == (0.2, False)
    assert (attention.hidden, attention.dropout, attention.beta) == (128, 0.2, 0.01)
    assert attention.version == 2 and attention.per is None and not attention.pools
    assert Attention(per="sample").pools and not Attention(per="token").pools
    assert LearnedRouter().per == "token" and LearnedRouter().beta == 0
    assert (routed.k, routed.num_queried(5), Routed(k="all").num_queried(5)) == (2, 2, 5)
    for kind in (Uncertainty, Attention, LearnedRouter):
        assert kind().mix == "probabilities"
    assert UniformMean().mix == FixedWeights(weights=(1,)).mix == Routed().mix == "logits"
    network: Any = attention.build(K, V, H)
    assert network.features.out_features == 128 and network.dropout.p == 0.2
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert shapes == {
        "teachers": (K, 128),
        "features.weight": (128, H),
        "features.bias": (128,),
        "score.weight": (1, 128),
    }
    assert network.teachers.std() > 0.5  # embeddings that are equal would give equal scores


def test_the_attentions_network_is_an_mlp_of_features_and_a_teachers_embedding() -> None:
    """score_m = v · ReLU([W I] · [norm(x); t_m] + b), one row and teacher at a time."""
    network: Any = Attention(dropout=0).build(K, V, H)
    for param in network.parameters():
        nn.init.normal_(param)
    features_BH = torch.randn(B, H)
    for b, x_H in enumerate(features_BH):
        normed_H = (x_H - x_H.mean()) / (x_H.var(unbiased=False) + 1e-5).sqrt()
        for k, t_X in enumerate(network.teachers):
            first = torch.cat([network.features.weight, torch.eye(len(t_X))], dim=1)
            hidden_X = (first @ torch.cat([normed_H, t_X]) + network.features.bias).relu()
            score = network.score.weight[0] @ hidden_X
            torch.testing.assert_close(network(features_BH)[b, k], score, rtol=1e-4, atol=1e-4)


def test_counts_that_do_not_fit_name_the_key() -> None:
    with pytest.raises(ConfigError, match=r"aggregation.k must lie between 1 and .* \(2\).*got 3"):
        Routed(k=3).check(["a", "b"])
    with pytest.raises(ConfigError, match=r"aggregation.weights has 1 values for 2 teachers"):
        FixedWeights(weights=(1.0,)).check(["a", "b"])
    with pytest.raises(ConfigError, match=r"aggregation.teacher 'c' is not a teacher: use one"):
        Single(teacher="c").check(["a", "b"])
    with pytest.raises(ValueError, match="non-negative"):
        FixedWeights(weights=(1.0, -1.0))


def test_routed_takes_from_one_expert_to_all_of_them() -> None:
    names = ["a", "b", "c"]
    for k in (1, 3, "all"):
        Routed(k=k).check(names)  # type: ignore[arg-type]
    for k in (0, 4):
        with pytest.raises(ConfigError, match=rf"between 1 and .* \(3\), or be 'all', got {k}"):
            Routed(k=k).check(names)
    routed = Routed(k=1, mix="probabilities", router="r")
    assert routed.needs_router() and not UniformMean().needs_router()
    assert routed.querying_all() == Routed(k="all", mix="probabilities", router="r")
    inputs = RoutingInputs(("a", "b", "c"), torch.full((2,), -1), torch.randn(2, 3))
    assert Routed(k="all").choose(inputs).all() and routed.choose(inputs).sum() == 2
    assert UniformMean().num_queried(5) == 5 and UniformMean().querying_all() == UniformMean()
