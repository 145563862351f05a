import pickle
from pathlib import Path

import numpy as np
import pytest
from data_rows import make_rows, write
from transformers import AutoTokenizer

from distill.config import SPLITS
from distill.data.corpus import build_corpus
from distill.data.tokens import tokenise
from distill.errors import ModelError
from distill.models.tokenizer import tokenizer_fingerprint

MAX_LENGTH = 16


@pytest.mark.parametrize("is_pair", [False, True])
def test_tokens_are_those_of_the_tokenizer(is_pair, tmp_path, data, tokenizer_folder):
    rows = [{**row, "other": row["text"][::-1]} for row in make_rows(2500)]
    columns = {"text_pair": "other"} if is_pair else {}
    corpus = build_corpus(data(write(rows, tmp_path / "rows.parquet"), columns=columns))
    tokens = tokenise(corpus, tokenizer_folder, MAX_LENGTH)
    everything = [text for split in SPLITS for text in corpus.texts(split)]
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    rng = np.random.default_rng(0)
    for ids in (range(9), rng.permutation(2500)[:64]):
        first = [everything[i][0] for i in ids]
        second = [everything[i][1] for i in ids] if is_pair else None
        expected = tokenizer(
            first, second, truncation=True, max_length=MAX_LENGTH, padding=True, return_tensors="np"
        )
        padded = tokens.padded(ids)
        assert np.array_equal(padded.input_ids_BT, expected["input_ids"])
        assert np.array_equal(padded.attention_mask_BT, expected["attention_mask"])
        assert np.array_equal(tokens.lengths(ids), expected["attention_mask"].sum(1))
        if is_pair:
            assert padded.token_type_ids_BT is not None and padded.token_type_ids_BT.max() == 1
            assert np.array_equal(padded.token_type_ids_BT, expected["token_type_ids"])
        else:
            assert padded.token_type_ids_BT is None
    firsts = [text for text, _ in everything]
    seconds = [pair for _, pair in everything] if is_pair else None
    lengths = [len(ids) for ids in tokenizer(firsts, seconds)["input_ids"]]
    assert tokens.num_truncated == sum(length > MAX_LENGTH for length in lengths) > 0


def test_a_text_of_100000_characters_is_cut_to_its_head(tmp_path, data, tokenizer_folder):
    rows = make_rows()
    rows[0]["text"] = "good film " * 10_000
    for row in rows[1:]:
        row["text"] = row["text"][:9]
    corpus = build_corpus(data(write(rows, tmp_path / "rows.csv")))
    tokens = tokenise(corpus, tokenizer_folder, MAX_LENGTH)
    assert tokens.num_truncated == 1
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    head = tokenizer("good film " * 20, truncation=True, max_length=MAX_LENGTH)["input_ids"]
    assert tokens.padded([0]).input_ids_BT.tolist() == [head]


def test_tokens_are_written_once_for_each_tokenizer_and_length(tmp_path, data, tokenizer_folder):
    corpus = build_corpus(data(write(make_rows(), tmp_path / "rows.csv")))
    first = tokenise(corpus, tokenizer_folder, MAX_LENGTH)
    written = (first.folder / "tokens.arrow").stat().st_mtime_ns
    copy = pickle.loads(pickle.dumps(tokenise(corpus, tokenizer_folder, MAX_LENGTH)))
    assert (copy.folder / "tokens.arrow").stat().st_mtime_ns == written
    assert np.array_equal(copy.padded([3, 1]).input_ids_BT, first.padded([3, 1]).input_ids_BT)
    assert tokenise(corpus, tokenizer_folder, 8).fingerprint != first.fingerprint


def test_a_tokenizer_is_known_by_what_it_does(tmp_path, tokenizer_folder):
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    tokenizer("a b c", truncation=True, max_length=4, padding="max_length")  # leaves saved traces
    tokenizer.save_pretrained(tmp_path / "copy")
    assert tokenizer_fingerprint(tmp_path / "copy") == tokenizer_fingerprint(tokenizer_folder)
    tokenizer.add_tokens(["extra"])
    tokenizer.save_pretrained(tmp_path / "other")
    assert tokenizer_fingerprint(tmp_path / "other") != tokenizer_fingerprint(tokenizer_folder)


def test_unusable_tokenizers_are_refused(tmp_path):
    def refuses(folder: Path, part: str) -> None:
        with pytest.raises(ModelError, match=part) as caught:
            tokenizer_fingerprint(folder)
        assert str(folder) in str(caught.value)

    refuses(tmp_path / "absent", "no tokenizer folder")
    (tmp_path / "empty").mkdir()
    refuses(tmp_path / "empty", "no tokenizer files")
