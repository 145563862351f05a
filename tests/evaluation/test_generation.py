"""What models write, and what it costs."""

import pytest
import torch

from distill.errors import Interrupted, ModelError
from distill.evaluation.efficiency import measure
from distill.evaluation.generation import GenerationScores, score_answers, write_answers
from distill.models.greedy import generate
from distill.models.tokenizer import load_tokenizer
from tests.models.tiny_models import NUM_LANGUAGE_TOKENS, WORDS, decoder, save_language_tokenizer

PROMPTS = [[2, 9, 4], [7], [5, 5, 6, 8, 3, 11], [12, 20], [3, 4]]


@torch.no_grad()
def one_by_one(model, prompt, num_new, ends=()):
    """By the definition, without a cache."""
    ids = list(prompt)
    for _ in range(num_new):
        token = int(model(torch.tensor([ids])).logits[0, -1].argmax())
        if token in ends:
            break
        ids.append(token)
    return ids[len(prompt) :]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_batches_write_what_each_prompt_gets_alone(family):
    model = decoder(family).train()
    model.generation_config.repetition_penalty = 5.0  # of its own: passed over
    written = generate(model, PROMPTS, 8, ends=(), batch_size=3)
    assert model.training
    assert model.generation_config.repetition_penalty == 5.0
    model.eval()
    assert written == [one_by_one(model, prompt, 8) for prompt in PROMPTS]
    model.generation_config.eos_token_id = model.config.eos_token_id = written[1][0]
    assert generate(model, PROMPTS, 8, ends=()) == written  # without an end there is none
    ends = (written[0][4], written[2][6])
    stopped = generate(model, PROMPTS, 8, ends, batch_size=2)
    assert stopped == [one_by_one(model, prompt, 8, ends) for prompt in PROMPTS]
    assert len(stopped[0]) <= 4


def test_writing_ends_where_positions_do():
    model = decoder("gpt2")  # 32 positions, in a table
    prompts = [[3] * 30, [4] * 8, [5] * 25]
    assert [len(w) for w in generate(model, prompts, 10, ends=())] == [2, 10, 7]
    with pytest.raises(ModelError, match=r"prompt of 32 tokens .* 32"):
        generate(model, [[3] * 32], 10, ends=())
    with pytest.raises(Interrupted):
        generate(model, prompts, 10, (), should_stop=lambda: True)


def test_answers_are_text(tmp_path):
    save_language_tokenizer(tmp_path)
    tokenizer, model = load_tokenizer(tmp_path), decoder()
    (answer,) = write_answers(model, tokenizer, [[2, 9]], 6)
    expected = one_by_one(model, [2, 9], 6, ends=(0,))
    assert answer.split() == [WORDS[token - 2] for token in expected if token > 1]


def test_blanks_do_not_matter_and_other_words_do():
    scores = score_answers(["a  fine\nfilm ", "a film", "no"], ["a fine film", "a fine film", "x"])
    assert scores.num == 3
    assert scores.exact_match == pytest.approx(1 / 3)
    # ROUGE-L of the second: 2 common words, precision 2/2, recall 2/3, F1 4/5.
    assert scores.rouge_l == pytest.approx((1 + 0.8 + 0) / 3)
    assert (scores + scores).rouge_l == pytest.approx(scores.rouge_l)
    assert GenerationScores() + scores == scores


def test_the_cost_of_a_language_model(tmp_path):
    model = decoder("llama", max_position_embeddings=20)
    length, h, kv, f, v = 20, 16, 8, 24, model.config.vocab_size
    cost = measure(model, length, num_runs=2)
    layer = length * (2 * h * h + 2 * h * kv + 3 * h * f) + 2 * length * length * h
    expected = 2 * (4 * layer + length * h * v)
    assert cost.gflops * 1e9 == pytest.approx(expected, rel=1e-9)
    model.save_pretrained(tmp_path)
    assert round(cost.size_mb * 1e6) == (tmp_path / "model.safetensors").stat().st_size
    assert cost.params == model.num_parameters()
    assert cost.tokens_per_s > 0
    held = 4 * model.num_parameters() / 1e6
    keys_and_values = 2 * 4 * (10 + 9) * kv * 4 / 1e6  # layers, tokens, float32
    assert cost.peak_memory_mb > held + keys_and_values


def test_a_mixture_costs_the_experts_that_are_asked():
    """2 of 3 for every token, and the product that chooses them."""
    length, h, kv, f, v = 20, 16, 8, 24, NUM_LANGUAGE_TOKENS
    attention = length * (2 * h * h + 2 * h * kv) + 2 * length * length * h
    layer = attention + length * (h * 3 + 2 * 3 * h * f)
    cost = measure(decoder("mixtral", max_position_embeddings=20), length, num_runs=2)
    assert cost.gflops * 1e9 == pytest.approx(2 * (4 * layer + length * h * v), rel=1e-9)
