"""Teachers that have nothing to teach are found at their first answer, through every wire."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import pytest
import torch

from distill.errors import TeacherAnswerError
from distill.records import AnswerStats
from distill.teachers.output_quality import Health
from distill.teachers.requests import HeadRequest
from distill.wires import DenseWire, HiddenWire, SampledWire, TopKWire, WireFormat
from tests.toys_language import NUM_TOKENS, llama
from tests.toys_moe import plain, request
from tests.toys_teachers import backend_of

WIRES: list[WireFormat] = [
    DenseWire(dtype="float32"),
    DenseWire(dtype="bfloat16"),
    HiddenWire(dtype="float32"),
    TopKWire(k=4),
    SampledWire(),
]
PADDED = NUM_TOKENS + 6


def biased(bias_V: torch.Tensor, weight: float = 1.0) -> Any:
    """A model with a padded vocabulary, whose head has a bias."""
    model: Any = llama(1, PADDED, tie_word_embeddings=False)
    with torch.no_grad():
        model.lm_head.weight *= weight
    model.lm_head.bias = torch.nn.Parameter(bias_V)
    return model


def engine(model: Any, wire: WireFormat) -> Any:
    return backend_of(model, num_labels=NUM_TOKENS, wire=wire, is_language_model=True)


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
@pytest.mark.parametrize("level", [0.0, 3.0])
def test_logits_that_are_the_same_for_all_tokens_stop_the_run(
    wire: WireFormat, level: float
) -> None:
    sick = engine(biased(torch.full((PADDED,), level), weight=1e-6), wire)
    message = rf"the same for all {NUM_TOKENS} tokens.* less than 0\.001.*copy its folder again"
    with pytest.raises(TeacherAnswerError, match=message):
        sick.answer(request(wire=wire))


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
def test_a_head_that_rules_padding_out_changes_nothing(wire: WireFormat) -> None:
    bias_V = torch.zeros(PADDED)
    with_zeros = engine(biased(bias_V.clone()), wire)
    bias_V[NUM_TOKENS:] = -torch.inf
    ruled_out = engine(biased(bias_V), wire)
    expected = with_zeros.answer(request(wire=wire))
    found = ruled_out.answer(request(wire=wire))
    assert np.array_equal(found.payload, expected.payload)
    assert found.stats == expected.stats
    if wire.takes == "hidden":
        assert ruled_out.call(HeadRequest()).equals(with_zeros.call(HeadRequest()))


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
@pytest.mark.parametrize("value", [-math.inf, math.nan])
def test_a_head_that_is_not_finite_within_the_vocabulary_is_refused(
    wire: WireFormat, value: float
) -> None:
    bias_V = torch.zeros(PADDED)
    bias_V[NUM_TOKENS - 1] = value
    with pytest.raises(TeacherAnswerError, match="hold NaN or infinity: check its weights"):
        engine(biased(bias_V), wire).answer(request(wire=wire))


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
def test_the_perplexity_is_that_of_the_tokens_that_follow(wire: WireFormat) -> None:
    model, asked = llama(1, PADDED), request(wire=wire)
    assert asked.input_ids_BT is not None and asked.targets_BT is not None
    logits_PV = torch.from_numpy(plain(model, asked)[:, :NUM_TOKENS])
    labels_P = torch.from_numpy(np.roll(asked.input_ids_BT, -1, axis=1)[asked.targets_BT])
    stats = engine(model, wire).answer(asked).stats
    assert stats is not None
    assert stats.num_positions == len(labels_P), "so few are all looked at"
    expected = torch.nn.functional.cross_entropy(logits_PV, labels_P).exp()
    assert stats.perplexity == pytest.approx(float(expected), rel=1e-4)
    assert stats.mass_outside == 0


def test_of_a_long_forward_a_sample_is_looked_at_the_same_at_each_time() -> None:
    asked = request(num_rows=20, num_tokens=30)
    first, second = (engine(llama(1, PADDED), WIRES[0]).answer(asked).stats for _ in range(2))
    assert first == second
    assert first is not None and first.num_positions == 64


def test_who_knows_nothing_of_the_data_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    def stats(perplexity: float) -> AnswerStats:
        return AnswerStats(10, 10 * math.log(perplexity), 0.0)

    health = Health()
    with caplog.at_level(logging.WARNING):
        health.check("good", stats(49.9), 100)
        assert not caplog.records
        health.check("bad", stats(50.1), 100)
        health.check("bad", stats(50.1), 100)
        Health(is_data=False).check("on_policy", stats(99.0), 100)
    (record,) = caplog.records
    assert "teacher 'bad' has a perplexity of 50 on the rows" in record.getMessage()
    assert "of 100 tokens" in record.getMessage()


def test_mass_outside_is_refused_once_it_is_certain() -> None:
    """Five positions of 100 at 2 % could be chance; thousands are not, nor is 50 % of a few."""
    Health().check("t", AnswerStats(100, 0.0, 2.0), 10)
    Health().check("t", AnswerStats(10**6, 0.0, 0.0099 * 10**6), 10)
    for num, mean in ((10_000, 0.02), (64, 0.5)):
        health = Health()
        with pytest.raises(TeacherAnswerError, match=rf"'t' gives {mean:.1%} of its probability"):
            for _ in range(num // 32):
                health.check("t", AnswerStats(32, 0.0, 32 * mean), 10)
