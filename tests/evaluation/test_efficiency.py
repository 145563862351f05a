import time

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from distill.errors import ModelError
from distill.evaluation.efficiency import LiveTensors, folder_size_mb, latency_ms, measure

SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "num_labels": 3,
}


def bert(**changes: int) -> BertForSequenceClassification:
    return BertForSequenceClassification(BertConfig(**(SIZES | changes)))


@pytest.mark.parametrize("length", [7, 40])
def test_operations_are_those_of_the_matrix_products(length):
    h, f, c, t = 32, 48, 3, length
    layer = t * (4 * h * h + 2 * h * f) + 2 * t * t * h  # projections, ffn; scores and mixing
    expected = 2 * (2 * layer + h * h + h * c)
    assert measure(bert(), length, num_runs=2).gflops * 1e9 == pytest.approx(expected, rel=1e-9)


def test_size_is_that_of_the_saved_file(tmp_path):
    model = bert()
    cost = measure(model, 8, num_runs=2)
    model.save_pretrained(tmp_path)
    assert cost.params == model.num_parameters()
    assert cost.size_mb == folder_size_mb(tmp_path)
    assert round(cost.size_mb * 1e6) == (tmp_path / "model.safetensors").stat().st_size
    with pytest.raises(ModelError, match="no safetensors"):
        folder_size_mb(tmp_path / "empty")


@pytest.mark.parametrize("training", [True, False])
def test_the_model_stays_in_its_mode_even_on_failure(training):
    model = bert().train(training)
    state = torch.get_rng_state()
    measure(model, 8, num_runs=2)
    assert model.training is training
    assert torch.equal(state, torch.get_rng_state())  # no dropout was drawn
    with pytest.raises((IndexError, RuntimeError)):
        measure(model, 41, num_runs=2)
    assert model.training is training


class Sleeping(BertForSequenceClassification):
    """Every tenth forward takes at least 60 ms, each other one at least 4 ms."""

    num_calls = 0

    def forward(self, *args, **kwargs):
        self.num_calls += 1
        time.sleep(0.06 if self.num_calls % 10 == 0 else 0.004)
        return super().forward(*args, **kwargs)


def test_latencies_are_the_median_and_the_95th_percentile_in_milliseconds():
    model = Sleeping(BertConfig(**SIZES))
    start = time.perf_counter()
    cost = measure(model, 8, num_runs=20)
    elapsed_ms = (time.perf_counter() - start) * 1e3
    # One counts operations, three are warm-up, one counts tensors.
    assert model.num_calls == 1 + 3 + 20 + 1
    # Two of the twenty are slow: the 95th percentile is at least the shorter of them.
    assert cost.latency_ms >= 4 and cost.latency_p95_ms >= 60
    # Half of the runs take the median or longer, two the 95th percentile or nearly so.
    assert cost.latency_ms * 10 <= elapsed_ms
    assert cost.latency_ms <= cost.latency_p95_ms <= elapsed_ms
    assert cost.device == f"cpu, {torch.get_num_threads()} threads"
    assert cost.tokens_per_s is None  # of language models alone


def test_latency_of_a_call_is_its_median():
    calls = []

    def call():
        calls.append(None)
        time.sleep(0.05 if len(calls) % 4 == 0 else 0.002)

    start = time.perf_counter()
    found = latency_ms(call, num_runs=8)
    elapsed_ms = (time.perf_counter() - start) * 1e3
    assert len(calls) == 3 + 8
    assert 2 <= found <= elapsed_ms / 4


def test_roberta_at_its_longest():
    model = RobertaForSequenceClassification(RobertaConfig(**SIZES, pad_token_id=1))
    assert measure(model, 38, num_runs=2).gflops > 0


def test_live_tensors_are_those_held_at_once():
    layer, rows = torch.nn.Linear(100, 400), torch.zeros(50, 100)
    with torch.inference_mode(), LiveTensors() as live:
        for _ in range(3):
            layer(rows)  # each is let go before the next
    assert live.peak_bytes == 4 * 50 * 400
    with torch.inference_mode(), LiveTensors() as live:
        kept = [layer(rows) for _ in range(3)]
        layer.weight.t()  # a view of what was there before
    assert live.peak_bytes == 3 * kept[0].nbytes


def test_peak_memory_holds_the_weights_and_grows_with_the_length():
    model = bert(max_position_embeddings=200)
    short, long = measure(model, 8, num_runs=2), measure(model, 200, num_runs=2)
    assert model.num_parameters() * 4 / 1e6 < short.peak_memory_mb < long.peak_memory_mb
