"""Answers to chats end where a turn ends, which need not be the end of a text."""

from distill.evaluation.generation import write_answers
from distill.models.greedy import end_ids, generate
from distill.models.tokenizer import load_tokenizer
from tests.models.tiny_models import WORDS, decoder, save_language_tokenizer


def test_an_answer_ends_with_its_turn(tmp_path):
    save_language_tokenizer(tmp_path)
    tokenizer, model = load_tokenizer(tmp_path), decoder()
    prompt = [12, 20]
    (whole,) = generate(model, [prompt], 8, end_ids(model, tokenizer))
    end = next(token for token in whole[2:] if token not in whole[:2])
    before = whole[: whole.index(end)]
    (answer,) = write_answers(model, tokenizer, [prompt], 8, turn_ends=(end,))
    assert answer.split() == [WORDS[token - 2] for token in before if token > 1]
    model.generation_config.eos_token_id = [1, 0]
    assert end_ids(model, tokenizer, (end, 0)) == (0, 1, end)
