"""Tokens and texts that stand in the rows of a data set."""

import pytest
from lm_data import CHATML, chat_rows, save_causal_tokenizer, text_rows
from test_blocks import corpus_of as corpus_of

from distill.data.blocks import build_blocks
from distill.data.emitted import emitted_id, emitted_text
from distill.models.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def causal_folder(tmp_path_factory):
    return save_causal_tokenizer(tmp_path_factory.mktemp("emitted") / "tokenizer", template=CHATML)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_text_of_several_tokens_is_found_in_every_split(corpus_of, causal_folder, split):
    rows = text_rows()
    place = next(i for i in reversed(range(len(rows))) if rows[i]["split"] == split)
    clean = build_blocks(corpus_of(rows), causal_folder, 48)
    assert emitted_text(clean, ["</think>", "<think>"]) is None
    rows[place]["text"] = f"a <think> {rows[place]['text']}"
    blocks = build_blocks(corpus_of(rows), causal_folder, 48)
    assert emitted_text(blocks, ["</think>", "<think>"]) == "<think>"


def test_what_the_template_writes_is_found(corpus_of, causal_folder):
    ids = load_tokenizer(causal_folder).get_vocab()
    blocks = build_blocks(corpus_of(chat_rows()), causal_folder, 48)
    assert emitted_id(blocks, {ids["<bos>"], ids["<|user|>"]}) == ids["<|user|>"]
    assert emitted_id(blocks, {ids["<bos>"]}) is None
    assert emitted_text(blocks, ["<|assistant|>"]) == "<|assistant|>"
