"""Arithmetic with worked steps: every step is right, and no pair of numbers crosses splits."""

import re

import pytest
from pyarrow import parquet
from transformers import AutoTokenizer

from distill.errors import DataError
from distill.samples.arithmetic import build, main, worked


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arithmetic")
    build(folder, digits=4, num_pairs=600)
    return folder, parquet.read_table(folder / "arithmetic.parquet").to_pylist()


def test_every_step_and_result_is_right(built):
    for row in built[1]:
        steps, result = row["completion"].split(";")
        assert eval(row["prompt"].removesuffix("=")) == int(result)
        for step in steps.split(","):
            terms, value = step.split("=")
            assert eval(terms) == int(value), row


def test_the_written_forms():
    assert worked(85, 47, "addition") == "5+7+0=12,8+4+1=13;132"
    assert worked(85, 47, "subtraction") == "5-7-0=-2,8-4-1=3;38"
    assert worked(100, 1, "subtraction") == "0-1-0=-1,0-0-1=-1,1-0-1=0;99"
    assert worked(85, 47, "multiplication") == "85*7=595,85*4=340;3995"


def test_no_pair_of_numbers_crosses_splits_or_comes_twice(built):
    splits: dict[tuple[int, ...], set[str]] = {}
    for row in built[1]:
        numbers = tuple(sorted(int(n) for n in re.findall(r"\d+", row["prompt"])))
        splits.setdefault(numbers, set()).add(row["split"])
    assert len(splits) == 600 and len(built[1]) == 3 * 600
    assert all(len(found) == 1 for found in splits.values())
    assert set.union(*splits.values()) == {"train", "transfer", "validation", "test"}


def test_the_same_seed_writes_the_same_rows(built, tmp_path):
    build(tmp_path, digits=4, num_pairs=600)
    assert parquet.read_table(tmp_path / "arithmetic.parquet").to_pylist() == built[1]
    build(tmp_path, digits=4, num_pairs=600, seed=1)
    assert parquet.read_table(tmp_path / "arithmetic.parquet").to_pylist() != built[1]


def test_the_tokenizer_has_one_token_a_character(built):
    tokenizer = AutoTokenizer.from_pretrained(built[0] / "tokenizer")
    for row in built[1][:50]:
        text = row["prompt"] + row["completion"]
        ids = tokenizer(text)["input_ids"]
        assert ids[0] == tokenizer.bos_token_id and len(ids) == len(text) + 1
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer("1 é")["input_ids"][2:] == [tokenizer.unk_token_id] * 2


def test_more_pairs_than_there_are_is_refused(tmp_path, capsys):
    with pytest.raises(DataError, match=r"--pairs must lie in \[1, 27\].* got 28"):
        build(tmp_path, digits=1, num_pairs=28)
    assert main(["--out", str(tmp_path), "--digits", "0"]) == 2
    assert "--digits must lie in [1, 18], got 0" in capsys.readouterr().err
