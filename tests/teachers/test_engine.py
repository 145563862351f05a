from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from distill.errors import TeacherAnswerError
from distill.sampling import Decoding
from distill.sampling.records import DraftRequest, GenerationRequest
from distill.teachers.requests import TeacherRequest
from distill.wires import decode_dense
from tests.toys_language import NUM_TOKENS, llama
from tests.toys_teachers import backend_of


def tiny_bert() -> BertForSequenceClassification:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=3,
    )
    return BertForSequenceClassification(config)


def request(num_rows: int = 9, num_tokens: int = 12) -> TeacherRequest:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, num_tokens + 1, num_rows)
    mask_BT = (np.arange(num_tokens)[None] < lengths[:, None]).astype(np.int64)
    ids_BT = rng.integers(1, 50, (num_rows, num_tokens)) * mask_BT
    return TeacherRequest("r", np.arange(num_rows), ids_BT, mask_BT)


def answer(engine: Any, asked: TeacherRequest) -> torch.Tensor:
    output = engine.answer(asked)
    assert output.request_id == asked.request_id
    assert np.array_equal(output.rows_B, asked.rows_B)
    return decode_dense(output.payload, output.wire)


def test_the_answer_is_the_models_raw_logits_without_dropout():
    model, asked = tiny_bert(), request()
    got = answer(backend_of(model, num_labels=3), asked)
    with torch.no_grad():
        want = model.eval()(
            torch.from_numpy(asked.input_ids_BT), torch.from_numpy(asked.attention_mask_BT)
        ).logits
    assert torch.equal(got, want)


@pytest.mark.parametrize("max_batch_tokens", [1, 12, 25, 40])
def test_a_split_request_answers_like_one_forward(max_batch_tokens):
    model, asked = tiny_bert(), request()
    sizes = []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: sizes.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    whole = answer(backend_of(model, num_labels=3), asked)
    sizes.clear()
    split = backend_of(model, num_labels=3, max_batch_tokens=max_batch_tokens)
    torch.testing.assert_close(answer(split, asked), whole, rtol=1e-5, atol=1e-6)
    assert all(b == 1 or b * t <= max_batch_tokens for b, t in sizes)
    assert sum(b for b, _ in sizes) == 9
    assert torch.equal(answer(split, asked), answer(split, asked))


def test_padding_changes_nothing():
    engine, asked = backend_of(tiny_bert(), num_labels=3), request()
    wider = TeacherRequest(
        "r",
        asked.rows_B,
        np.pad(asked.input_ids_BT, ((0, 0), (0, 7))),
        np.pad(asked.attention_mask_BT, ((0, 0), (0, 7))),
    )
    torch.testing.assert_close(answer(engine, wider), answer(engine, asked), rtol=1e-5, atol=1e-6)


def test_logits_that_are_not_finite_are_refused():
    model = tiny_bert()
    with torch.no_grad():
        model.classifier.bias[1] = torch.nan
    with pytest.raises(TeacherAnswerError, match="NaN"):
        backend_of(model, num_labels=3).answer(request())


def test_another_number_of_classes_is_refused():
    with pytest.raises(TeacherAnswerError, match=r"\[9, 3\], expected \[9, 4\]"):
        backend_of(tiny_bert(), num_labels=4).answer(request())


def test_finished_forwards_are_counted_of_models_and_of_functions():
    """Of a classifier, one for each block of rows."""
    for model in (tiny_bert(), lambda input_ids, attention_mask: torch.zeros(len(input_ids), 3)):
        engine = backend_of(model, num_labels=3, max_batch_tokens=4 * 12)
        engine.answer(request(9, 12))
        assert engine.num_forwards == 3


def test_each_token_that_is_written_and_each_round_that_is_verified_counts_as_a_forward():
    engine = backend_of(llama(0), num_labels=NUM_TOKENS, is_language_model=True)
    prompts = (np.array([3, 4, 5]), np.array([6, 7]))
    generated = GenerationRequest(
        "w", prompts, (5, 5), (), np.arange(2, dtype=np.uint64), Decoding()
    )
    engine.write(generated)
    assert engine.num_forwards == 1 + 5  # the prompts, then a token each
    last_b, drafts_bG = np.array([5, 7]), np.array([[3, 4], [5, 6]])
    uniform_b = np.array([0.5, 0.5])
    engine.verify(
        DraftRequest(
            "j", "rank 0", 0, prompts, (), np.arange(2), last_b, drafts_bG, uniform_b, 5, None,
            Decoding(),
        )
    )  # fmt: skip
    assert engine.num_forwards == 6 + 2  # the prompts, and the drafts at once
