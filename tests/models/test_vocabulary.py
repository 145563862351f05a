"""Which columns of the logits mean the same to a student and its teachers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, decoders
from transformers import AutoTokenizer

from distill.errors import ModelError
from distill.models.vocabulary import (
    SharedTokens,
    differing,
    same_tokenizer,
    same_vocabulary,
    shared_tokens,
)
from tests.toys_language import NUM_TOKENS, write_tokenizer

N = NUM_TOKENS


def saved(folder: Path, *added: str | AddedToken, decoder: Any = None) -> Path:
    """The toys' tokenizer with some added tokens."""
    tokenizer: Any = AutoTokenizer.from_pretrained(write_tokenizer(folder))
    tokenizer.add_tokens(list(added))
    if decoder is not None:
        tokenizer.backend_tokenizer.decoder = decoder
    tokenizer.save_pretrained(folder)
    return folder


def columns(student: Path, *teachers: Path) -> list[SharedTokens]:
    for teacher in teachers:
        same_vocabulary(student, teacher, sys.maxsize, sys.maxsize)
    return list(shared_tokens(student, {folder.name: folder for folder in teachers}).values())


def test_of_equal_tokenizers_all_columns_are_shared(tmp_path: Path) -> None:
    (found,) = columns(saved(tmp_path / "s"), saved(tmp_path / "t"))
    assert found == SharedTokens(N, (), N)
    assert found.outside == ()
    assert found.name == "", "keys of caches stay what they were"


def test_added_tokens_of_the_teacher_are_outside(tmp_path: Path) -> None:
    student, teacher = saved(tmp_path / "s"), saved(tmp_path / "t", "<think>", "</think>")
    (found,) = columns(student, teacher)
    assert found == SharedTokens(N, (), N + 2)
    assert found.outside == (N, N + 1)
    assert found.name == str(N)


def test_added_tokens_of_the_student_are_not_compared(tmp_path: Path) -> None:
    (found,) = columns(saved(tmp_path / "s", "<pad>"), saved(tmp_path / "t"))
    assert found == SharedTokens(N, (), N)


def test_an_id_of_two_meanings_is_left_out_and_those_behind_it_are_shared(tmp_path: Path) -> None:
    student, teacher = saved(tmp_path / "s", "<a>", "<b>"), saved(tmp_path / "t", "<c>", "<b>")
    (found,) = columns(student, teacher)
    assert found == SharedTokens(N + 2, (N,), N + 2)
    assert found.outside == (N,)
    assert found.name == f"{N + 2},{N}"


def test_what_one_teacher_lacks_is_compared_with_none(tmp_path: Path) -> None:
    student = saved(tmp_path / "s", "<a>", "<b>", "<d>")
    first, second = saved(tmp_path / "t", "<c>", "<b>", "<d>"), saved(tmp_path / "u", "<a>", "<b>")
    assert columns(student, first, second) == [
        SharedTokens(N + 2, (N,), N + 3),
        SharedTokens(N + 2, (N,), N + 2),
    ]


def test_a_decoder_and_the_mark_of_special_tokens_do_not_matter(tmp_path: Path) -> None:
    student = saved(tmp_path / "s", AddedToken("<a>", special=True))
    teacher = saved(tmp_path / "t", AddedToken("<a>", special=False), decoder=decoders.Fuse())
    assert not same_tokenizer(student, teacher)
    assert columns(student, teacher) == [SharedTokens(N + 1, (), N + 1)]


def test_a_token_that_takes_blanks_with_it_is_another(tmp_path: Path) -> None:
    student = saved(tmp_path / "s", AddedToken("<a>", lstrip=True))
    teacher = saved(tmp_path / "t", AddedToken("<a>"))
    ours, theirs = (AutoTokenizer.from_pretrained(folder) for folder in (student, teacher))
    assert differing(ours, theirs) == {N: ("<a>", "<a>")}


def test_words_that_differ_are_refused_by_their_ids_beside_added_tokens(tmp_path: Path) -> None:
    student = saved(tmp_path / "s", "<a>")
    teacher: Any = AutoTokenizer.from_pretrained(write_tokenizer(tmp_path / "t", extra=("word",)))
    teacher.add_tokens(["<a>"])
    teacher.save_pretrained(tmp_path / "t")
    with pytest.raises(ModelError, match=rf"differ: id {N}.*'word' to the teacher.*uld"):
        columns(student, tmp_path / "t")
