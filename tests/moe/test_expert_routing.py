"""Which experts answer, and that what they are drawn by does not depend on the rows beside."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

from distill.config.moe import AllExperts, KnowledgeAugmentation, OwnRouting, StudentAwareRouter
from distill.config.sampling import Decoding
from distill.data.splits import mix64
from distill.errors import ConfigError, ModelError, TeacherAnswerError
from distill.moe import draws
from distill.moe.gates import ExpertRouting
from distill.sampling.records import GenerationRequest
from distill.wires import SampledWire, TopKWire
from tests.teachers.test_adapters import rounds
from tests.toys_language import NUM_TOKENS, llama
from tests.toys_moe import FAMILIES, NUM_EXPERTS, OWN, engine, mixture, plain, request


@pytest.mark.parametrize("family", FAMILIES)
def test_a_wrapped_model_is_the_model(family: str) -> None:
    asked = request()
    expected = plain(mixture(family), asked)
    assert np.array_equal(engine(mixture(family)).answer(asked).payload, expected)
    as_own = KnowledgeAugmentation(passes=1, explore=0, experts=OWN)
    drawn = engine(mixture(family), as_own).answer(replace(asked, moe=as_own))
    assert np.array_equal(drawn.payload, expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_experts_are_the_models_own_code_with_k_of_n(family: str) -> None:
    asked = request()
    expected = plain(mixture(family, own=NUM_EXPERTS), asked)
    output = engine(mixture(family), AllExperts()).answer(asked)
    assert np.array_equal(output.payload, expected)
    assert output.usage is not None
    metrics = output.usage.metrics()
    assert metrics["busiest_expert_rate"] == metrics["idlest_expert_rate"] == 1
    assert not np.array_equal(plain(mixture(family), asked), expected)


def test_who_teaches_with_all_experts_judges_and_writes_with_all() -> None:
    prompts, seeds_B = (np.arange(2, 6), np.arange(3)), np.zeros(2, np.uint64)
    asked = GenerationRequest("w", prompts, (8, 8), (), seeds_B, Decoding(temperature=0))
    own, whole = engine(mixture()), engine(mixture(own=NUM_EXPERTS))
    with_all = engine(mixture(), AllExperts())
    texts, expected = with_all.write(asked).texts, whole.write(asked).texts
    assert all(map(np.array_equal, texts, expected))
    assert not all(map(np.array_equal, texts, own.write(asked).texts))
    assert repr(rounds(with_all)) == repr(rounds(whole)) != repr(rounds(own))


def test_usage_is_the_routers_own_numbers() -> None:
    asked, model = request(), mixture("olmoe")
    inputs = {name: torch.from_numpy(values) for name, values in asked.inputs().items()}
    with torch.no_grad():
        layers = model(**inputs, output_router_logits=True).router_logits
    counted = torch.from_numpy(asked.targets_BT).flatten()
    tops = [logits.float().softmax(1)[counted].topk(OWN, 1) for logits in layers]
    cache_only = np.mean([1 - float(top.values.sum(1).mean()) for top in tops])
    shares = torch.stack([t.indices.flatten().bincount(minlength=NUM_EXPERTS) for t in tops])
    usage = engine(mixture("olmoe")).answer(asked).usage
    assert usage is not None and usage.num_tokens == counted.sum()
    assert np.array_equal(usage.tokens_LE, shares.numpy())
    assert usage.metrics()["silent_mass_rate"] == pytest.approx(cache_only, rel=1e-5)


KA = KnowledgeAugmentation(passes=3, explore=0.4, experts=2, noise=True)


def test_draws_do_not_depend_on_the_rows_beside_nor_on_the_cut_into_forwards() -> None:
    asked = replace(request(num_rows=4), moe=KA, seed=7)
    whole = engine(mixture(), KA).answer(asked).payload
    in_parts = engine(mixture(), KA, max_batch_tokens=1).answer(asked).payload
    np.testing.assert_allclose(in_parts, whole, atol=1e-4)
    last = {
        name: getattr(asked, name)[2:3]
        for name in ("rows_B", "input_ids_BT", "position_ids_BT", "targets_BT")
    }
    alone = engine(mixture(), KA).answer(replace(asked, **last)).payload
    per_row = len(whole) // 4
    np.testing.assert_allclose(alone, whole[2 * per_row : 3 * per_row], atol=1e-4)


def test_passes_steps_and_rows_draw_otherwise() -> None:
    asked = replace(request(), moe=KA, seed=7)
    teacher = engine(mixture(), KA)
    first = np.split(teacher.answer(asked).payload, 3, axis=1)
    assert not any(np.allclose(first[0], other) for other in first[1:])
    assert not np.allclose(teacher.answer(replace(asked, seed=8)).payload[:, :NUM_TOKENS], first[0])
    again = np.split(teacher.answer(asked).payload, 3, axis=1)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    elsewhere = teacher.answer(replace(asked, rows_B=asked.rows_B + 1)).payload
    assert not np.allclose(elsewhere[:, :NUM_TOKENS], first[0])


def test_counters_are_splitmix64_and_draws_have_the_right_odds() -> None:
    values = np.array([0, 1, 2**63, 2**64 - 1, 12345], np.uint64)
    ours = draws.mixed(torch.from_numpy(values.view(np.int64))).numpy().view(np.uint64)
    assert np.array_equal(ours, mix64(values))
    seeds_n = draws.token_seeds(3, 1, np.arange(200), 100).flatten()
    assert len(seeds_n.unique()) == len(seeds_n)
    logits_E = torch.tensor([1.0, 0.0, -1.0, 0.5])
    drawn_n2 = draws.without_replacement(
        logits_E.expand(len(seeds_n), -1), draws.uniforms(seeds_n, 4), 2
    )
    p = logits_E.softmax(0).tolist()
    for i in range(4):
        # Drawn first, or second after another.
        odds = p[i] + sum(p[j] * p[i] / (1 - p[j]) for j in range(4) if j != i)
        assert float((drawn_n2 == i).any(1).double().mean()) == pytest.approx(odds, abs=0.015)
    normals = draws.normals(seeds_n, 2)
    assert float(normals.mean()) == pytest.approx(0, abs=0.02)
    assert float(normals.std()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("wire", [SampledWire(num_samples=3), TopKWire(k=3), None])
def test_passes_travel_in_every_wire_and_are_checked_one_by_one(wire: object) -> None:
    asked = replace(request(), moe=KA)
    if wire is not None:
        asked = replace(asked, wire=wire)
    output = engine(mixture(), KA).answer(asked)
    asked.check(output, NUM_TOKENS)
    with pytest.raises(TeacherAnswerError, match=r"has shape .* expected"):
        replace(asked, moe=AllExperts()).check(output, NUM_TOKENS)
    with pytest.raises(TeacherAnswerError, match="not 3 passes of one width"):
        asked.check(replace(output, payload=output.payload[:, :-1]), NUM_TOKENS)


def test_each_pass_of_the_sampled_wire_draws_its_own_samples() -> None:
    same = KnowledgeAugmentation(passes=2, explore=0, experts=OWN)
    asked = replace(request(), moe=same, wire=SampledWire(num_samples=6))
    first, second = np.split(engine(mixture(), same).answer(asked).payload, 2, axis=1)
    alone = engine(mixture()).answer(replace(asked, moe=OwnRouting())).payload
    ids = slice(0, 6 * 4)  # what follows is rounded as the number of rows in a forward has it
    assert np.array_equal(first[:, ids], alone[:, ids])
    assert not np.array_equal(first[:, ids], second[:, ids])


def test_a_dense_teacher_and_an_unknown_router_are_refused() -> None:
    with pytest.raises(ModelError, match=r"a llama teacher is dense, .*remove moe"):
        engine(llama(0), AllExperts())
    config = DeepseekV3Config(
        vocab_size=NUM_TOKENS,
        hidden_size=24,
        intermediate_size=16,
        moe_intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        first_k_dense_replace=0,
        q_lora_rank=8,
        kv_lora_rank=8,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=8,
        max_position_embeddings=64,
    )
    model = DeepseekV3ForCausalLM(config).eval()
    with pytest.raises(
        ModelError, match=r"router of a deepseek_v3 model computes the weights .* remove moe"
    ):
        ExpertRouting(model)
    asked = request()
    assert np.array_equal(engine(model).answer(asked).payload, plain(model, asked))


@pytest.mark.parametrize(
    ("moe", "num_experts", "message"),
    [
        (AllExperts(), None, "teachers.t.moe.type all chooses .* remove moe"),
        (KnowledgeAugmentation(), None, "teachers.t.moe.type ka chooses .* remove moe"),
        (StudentAwareRouter(), None, "teachers.t.moe.type sar chooses"),
        (KnowledgeAugmentation(experts=5), 4, "moe.experts must lie between 1 and the 4 .* got 5"),
        (KnowledgeAugmentation(), 1, "the 1 experts of a layer, got null, one fewer than all"),
    ],
)
def test_what_the_layers_do_not_have_is_refused(
    moe: AllExperts | KnowledgeAugmentation | StudentAwareRouter,
    num_experts: int | None,
    message: str,
) -> None:
    with pytest.raises(ConfigError, match=message):
        moe.check("teachers.t", num_experts)
    moe.check("teachers.t", 8)
