"""Longer texts are cut by the stated rule, singles and pairs, and nothing else changes."""

from itertools import product

import pytest
from data_rows import WORDS, make_rows, write

from distill.data.corpus import build_corpus
from distill.data.encode import encode, padded
from distill.data.tokens import tokenise
from distill.models.tokenizer import load_fast_tokenizer

SINGLES = [(" ".join(WORDS[:n]), None) for n in range(1, 15)]
PAIRS = [(" ".join(WORDS[:n]), " ".join(WORDS[-m:])) for n, m in product(range(1, 15), repeat=2)]


@pytest.mark.parametrize("texts", [SINGLES, PAIRS], ids=["single", "pair"])
@pytest.mark.parametrize("max_length", [4, 5, 8, 9, 14])
@pytest.mark.parametrize(("cut", "side"), [("head", "right"), ("tail", "left")])
def test_head_and_tail_are_transformers_truncation(
    texts, max_length, cut, side, tokenizer_folder
) -> None:
    tokenizer = load_fast_tokenizer(tokenizer_folder)
    found = encode(tokenizer, texts, max_length, cut)
    tokenizer.truncation_side = side
    first, second = zip(*texts, strict=True)
    arguments = (list(first), list(second)) if texts is PAIRS else (list(first),)
    want = tokenizer(*arguments, truncation="longest_first", max_length=max_length)
    assert found.ids == want["input_ids"]
    assert found.types == (want["token_type_ids"] if texts is PAIRS else None)
    whole = tokenizer(*arguments)["input_ids"]
    assert found.num_truncated == sum(len(ids) > max_length for ids in whole)


@pytest.mark.parametrize("max_length", [5, 8, 9])
def test_middle_keeps_both_ends_of_each_text(max_length, tokenizer_folder) -> None:
    tokenizer = load_fast_tokenizer(tokenizer_folder)
    for texts in (SINGLES, PAIRS):
        heads = encode(tokenizer, texts, max_length).ids
        middles = encode(tokenizer, texts, max_length, "middle").ids
        wholes = encode(tokenizer, texts, 1000).ids
        for (first, second), head, middle, whole in zip(texts, heads, middles, wholes, strict=True):
            assert len(middle) == len(head)
            for text in (first, second or ""):
                own = tokenizer(text, add_special_tokens=False)["input_ids"]
                # As many of each text as head keeps: its first ones there, both its ends here.
                size = _longest_start(own, head)
                want = own[: size - size // 2] + own[len(own) - size // 2 :]
                assert not want or _holds(middle, want)
            if len(whole) <= max_length:
                assert middle == whole


def _longest_start(own: list[int], row: list[int]) -> int:
    return max(size for size in range(len(own) + 1) if size == 0 or _holds(row, own[:size]))


def _holds(row: list[int], part: list[int]) -> bool:
    return any(row[i : i + len(part)] == part for i in range(len(row)))


def test_each_rule_has_tokens_of_its_own(tmp_path, data, tokenizer_folder) -> None:
    corpus = build_corpus(data(write(make_rows(), tmp_path / "rows.csv")))
    assert build_corpus(data(tmp_path / "rows.csv", cut="tail")).folder == corpus.folder
    rules = {cut: tokenise(corpus, tokenizer_folder, 8, cut) for cut in ("head", "tail", "middle")}
    assert len({tokens.fingerprint for tokens in rules.values()}) == 3
    assert len({tokens.num_truncated for tokens in rules.values()}) == 1
    texts = corpus.texts_of(range(20))
    for cut, tokens in rules.items():
        found = encode(load_fast_tokenizer(tokenizer_folder), texts, 8, cut)
        now = padded(found.ids, found.types, tokens.pad_id)
        kept = tokens.padded(range(20))
        assert (now.input_ids_BT == kept.input_ids_BT).all()
        assert (now.attention_mask_BT == kept.attention_mask_BT).all()
