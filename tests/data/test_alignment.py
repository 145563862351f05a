"""Two tokenizers on one text: their aligned positions are as many and at the same places."""

import pickle

import numpy as np
import pytest
from data_rows import write
from lm_data import completion_rows, save_causal_tokenizer, text_rows

from distill.data.alignment import for_teacher
from distill.data.blocks import build_blocks
from distill.data.content import DocumentContent
from distill.data.corpus import build_corpus
from distill.errors import ConfigError
from distill.models.tokenizer import load_fast_tokenizer

MAX_LENGTH = 24  # so that long texts are split


@pytest.fixture
def corpus(tmp_path, data):
    path = write(text_rows(), tmp_path / "rows.parquet")
    return build_corpus(data(path), content=DocumentContent)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    return (
        save_causal_tokenizer(folder / "small", has_bos=True, vocab_size=270),
        save_causal_tokenizer(folder / "large", vocab_size=420),
        save_causal_tokenizer(folder / "endless", eos=None, vocab_size=300),
    )


def standing(blocks, tokenizer, row):
    """What is written before and is predicted after each target, by sequence and position."""
    ids_BT, positions_BT, targets_BT = blocks.padded([row])
    found = []
    num_sequences = 0
    for t in np.arange(ids_BT.shape[1]):
        if positions_BT[0, t] == 0:
            start = t
            num_sequences += 1
        if targets_BT[0, t]:
            before = tokenizer.decode(ids_BT[0, start : t + 1], skip_special_tokens=True)
            found.append((num_sequences, before))
    return found


@pytest.mark.parametrize(("student", "teacher"), [(0, 1), (1, 0), (2, 0), (1, 2), (1, 1)])
def test_aligned_positions_have_the_same_text_behind_them(student, teacher, corpus, folders):
    blocks = build_blocks(corpus, folders[student], MAX_LENGTH)
    others = for_teacher(blocks, folders[teacher])
    tokenizers = [load_fast_tokenizer(folders[i]) for i in (student, teacher)]
    num_aligned = num_left = 0
    for row in range(blocks.num_rows):
        own = standing(blocks, tokenizers[0], row)
        is_aligned = others.aligned([row])
        assert len(is_aligned) == len(own)
        kept = [place for place, is_kept in zip(own, is_aligned, strict=True) if is_kept]
        assert kept == standing(others, tokenizers[1], row)
        num_aligned += len(kept)
        num_left += len(own) - len(kept)
    rows = np.array([5, 2, 7])
    assert (
        others.aligned(rows).sum()
        == others.num_targets(rows).sum()
        == int(others.padded(rows).targets_BT.sum())
    )
    assert num_aligned > blocks.num_rows  # not only the beginnings
    if student == teacher:
        assert num_left == 0  # but for the student's context of a split text, which is no target


def test_a_position_inside_a_character_is_never_aligned(tmp_path, data, folders):
    rows = [{**row, "text": f"{row['text']} 🐫🐫"} for row in text_rows(40)]
    config = data(write(rows, tmp_path / "rows.parquet"))
    blocks = build_blocks(build_corpus(config, content=DocumentContent), folders[0], 64)
    others = for_teacher(blocks, folders[1])
    tokenizer = load_fast_tokenizer(folders[1])
    places = [place for row in range(blocks.num_rows) for place in standing(others, tokenizer, row)]
    assert any("🐫" in text for _, text in places)
    assert not any("\ufffd" in text for _, text in places)


def test_it_is_written_once_and_pickles_as_its_path(corpus, folders):
    blocks = build_blocks(corpus, folders[0], MAX_LENGTH)
    first = for_teacher(blocks, folders[1])
    written = (first.folder / "blocks.arrow").stat().st_mtime_ns
    copy = pickle.loads(pickle.dumps(for_teacher(blocks, folders[1])))
    assert (copy.folder / "blocks.arrow").stat().st_mtime_ns == written
    assert np.array_equal(copy.padded([4, 0]).input_ids_BT, first.padded([4, 0]).input_ids_BT)
    assert for_teacher(blocks, folders[2]).fingerprint != first.fingerprint


def test_prompts_are_refused(tmp_path, data, folders):
    columns = {"prompt": "prompt", "completion": "completion"}
    config = data(write(completion_rows(), tmp_path / "rows.parquet"), columns=columns)
    blocks = build_blocks(build_corpus(config, content=DocumentContent), folders[0], 64, "tail")
    with pytest.raises(ConfigError, match=r"large differs from the student's.*data\.columns\.text"):
        for_teacher(blocks, folders[1])
