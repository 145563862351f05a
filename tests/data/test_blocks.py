"""Blocks: the same sequences packed or not, their boundaries, their counts, and bad inputs."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from data_rows import write
from lm_data import CHATML, chat_rows, completion_rows, save_causal_tokenizer, text_rows

from distill.config import SPLITS
from distill.data.batches import Batches
from distill.data.blocks import build_blocks
from distill.data.content import DocumentContent
from distill.data.corpus import build_corpus
from distill.errors import ConfigError, DataError
from distill.records import UNLABELLED

MAX_LENGTH = 48


@pytest.fixture(scope="module")
def causal_folder(tmp_path_factory):
    return save_causal_tokenizer(tmp_path_factory.mktemp("blocks") / "tokenizer", template=CHATML)


@pytest.fixture
def corpus_of(tmp_path, data):
    def make(rows, **settings):
        columns = {
            "text": {},
            "prompt": {"prompt": "prompt", "completion": "completion"},
            "messages": {"messages": "messages"},
        }[next(iter(rows[0]))]
        path = write(rows, tmp_path / "rows.parquet")
        return build_corpus(data(path, columns=columns, **settings), content=DocumentContent)

    return make


def sequences_in(blocks, rows):
    """(ids, targets) of every sequence, taken apart where positions start anew."""
    found = []
    ids_BT, positions_BT, targets_BT = blocks.padded(rows)
    for row, length in enumerate(blocks.lengths(rows)):
        starts = np.flatnonzero(positions_BT[row, :length] == 0)
        for start, stop in zip(starts, [*starts[1:], length], strict=True):
            assert positions_BT[row, start:stop].tolist() == list(range(stop - start))
            assert not targets_BT[row, stop - 1]  # the next token is another sequence's
            found.append((tuple(ids_BT[row, start:stop]), tuple(targets_BT[row, start:stop])))
        assert positions_BT[row, length:].tolist() == list(range(positions_BT.shape[1] - length))
        assert not targets_BT[row, length:].any()
    return found


@pytest.mark.parametrize("make", [text_rows, completion_rows, chat_rows])
def test_packed_blocks_hold_the_same_sequences(make, corpus_of, causal_folder):
    corpus = corpus_of(make())
    packed = build_blocks(corpus, causal_folder, MAX_LENGTH)
    single = build_blocks(corpus, causal_folder, MAX_LENGTH, is_packing=False)
    assert packed.fingerprint != single.fingerprint and packed.fill > single.fill
    for split in SPLITS:
        rows = packed.rows(split)
        for domain in range(3):
            own = [
                np.array(b.rows(split))[b.domains_of(b.rows(split)) == domain]
                for b in (packed, single)
            ]
            found = [sorted(sequences_in(b, r)) for b, r in zip((packed, single), own, strict=True)]
            assert found[0] == found[1] and found[0]
            assert packed.num_targets(own[0]).sum() == single.num_targets(own[1]).sum()
        assert packed.num_targets(rows).tolist() == packed.padded(rows).targets_BT.sum(1).tolist()
    assert packed.lengths(range(packed.num_rows)).max() <= MAX_LENGTH
    assert packed.fill == packed.lengths(range(packed.num_rows)).sum() / (
        packed.num_rows * MAX_LENGTH
    )


def test_blocks_of_every_kind_of_row_are_a_corpus_of_their_own(corpus_of, causal_folder):
    corpus = corpus_of(text_rows())
    blocks = build_blocks(corpus, causal_folder, MAX_LENGTH)
    rows = range(blocks.num_rows)
    assert [r for split in SPLITS for r in blocks.rows(split)] == list(rows)
    texts = blocks.texts_of(rows)
    documents = corpus.documents_of(range(corpus.num_rows))
    names = ("news", "movies", "absent")
    domain_teachers = blocks.domain_teachers_of(rows, names)
    for split in SPLITS:
        inside = set(corpus.rows(split))
        for block in blocks.rows(split):
            domains = {int(corpus.domains_of([row])[0]) for row, _ in texts[block]}
            assert domains == {int(blocks.domains_of([block])[0])}
            assert {row for row, _ in texts[block]} <= inside
            assert all(text in documents[row][0] for row, text in texts[block])
            name = blocks.domain_names[domains.pop()]
            assert domain_teachers[block] == (names.index(name) if name in names else -1)
    assert set(blocks.labels_of(rows).tolist()) == {UNLABELLED}


def test_blocks_are_written_once_and_pickle_as_their_path(corpus_of, causal_folder):
    corpus = corpus_of(completion_rows())
    first = build_blocks(corpus, causal_folder, 40, max_unlearnable=1.0)
    written = (first.folder / "blocks.arrow").stat().st_mtime_ns
    copy = pickle.loads(pickle.dumps(build_blocks(corpus, causal_folder, 40, max_unlearnable=1.0)))
    assert (copy.folder / "blocks.arrow").stat().st_mtime_ns == written
    assert np.array_equal(copy.padded([3, 1]).input_ids_BT, first.padded([3, 1]).input_ids_BT)
    other = build_blocks(corpus, causal_folder, 128)
    assert other.fingerprint != first.fingerprint
    tail = build_blocks(corpus, causal_folder, 40, "tail")
    assert tail.fingerprint != first.fingerprint
    assert tail.num_truncated == first.num_truncated > 0


@pytest.mark.slow
def test_another_process_packs_the_same_blocks(corpus_of, causal_folder, tmp_path):
    corpus = corpus_of(text_rows())
    here = build_blocks(corpus, causal_folder, MAX_LENGTH)
    written = (here.folder / "blocks.arrow").read_bytes()
    here.folder.rename(tmp_path / "moved")
    program = (
        "import sys; from pathlib import Path; from distill.data import Corpus, build_blocks; "
        "build_blocks(Corpus(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3]))"
    )
    arguments = [str(corpus.folder), str(causal_folder), str(MAX_LENGTH)]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True)
    assert (here.folder / "blocks.arrow").read_bytes() == written


def test_rows_with_nothing_to_learn_are_dropped_and_counted_up_to_a_share(corpus_of, causal_folder):
    rows = completion_rows()
    rows[7]["completion"] = rows[8]["completion"] = ""
    corpus = corpus_of(rows)
    blocks = build_blocks(corpus, causal_folder, 512, max_unlearnable=0.04)
    assert blocks.num_unlearnable == 2
    assert blocks.num_truncated == 0
    learnable = [r for r in rows if r["completion"]]
    assert len(sequences_in(blocks, range(blocks.num_rows))) == len(learnable)
    with pytest.raises(DataError) as caught:  # however the blocks were written before
        build_blocks(corpus, causal_folder, 512, max_unlearnable=0.03)
    for part in ("2 of 60 rows", "data.max_unlearnable 0.03", "of the train split, '7 "):
        assert part in str(caught.value)
    for row in rows:
        if row["split"] == "test":
            row["completion"] = ""
    with pytest.raises(DataError, match="no row of the test split has a target token"):
        build_blocks(corpus_of(rows), causal_folder, 512, max_unlearnable=1.0)


def test_a_chat_without_an_answer_has_nothing_to_learn(corpus_of, causal_folder):
    rows = chat_rows()
    rows[0]["messages"] = rows[0]["messages"][:2]
    blocks = build_blocks(corpus_of(rows), causal_folder, 512, max_unlearnable=0.1)
    assert blocks.num_unlearnable == 1


def test_prompts_end_where_the_answer_begins(corpus_of, causal_folder):
    from distill.models.tokenizer import load_fast_tokenizer

    tokenizer = load_fast_tokenizer(causal_folder)
    rows = completion_rows()
    rows[5]["completion"] = ""  # the first test row
    blocks = build_blocks(corpus_of(rows), causal_folder, 512, max_unlearnable=1.0)
    asked = [r for r in rows if r["split"] == "test" and r["completion"]]
    found = blocks.prompts_of("test", 1000)[:4]
    assert [p.reference for p in found] == [r["completion"] for r in asked[:4]]
    assert [tokenizer.decode(p.ids) for p in found] == [r["prompt"] for r in asked[:4]]
    assert [blocks.domain_names[p.domain] for p in found] == [r["domain"] for r in asked[:4]]
    assert len(blocks.prompts_of("test", 1000)) == len(asked)
    assert blocks.prompts_of("test", 0) == []
    # Few are spread over the split; the first row has nothing to write.
    tests = [r for r in rows if r["split"] == "test"]
    spread = [tests[1], *(tests[-(-k * len(tests) // 4)] for k in (1, 2, 3))]
    few = blocks.prompts_of("test", 4)
    assert [p.reference for p in few] == [r["completion"] for r in spread]
    # A prompt that fills the length is passed over, or loses its oldest tokens.
    head, tail = (
        build_blocks(corpus_of(rows), causal_folder, 24, cut, max_unlearnable=1.0)
        for cut in ("head", "tail")
    )
    short = [p for p in found if len(p.ids) < 24]
    assert 0 < len(short) < 4
    assert head.prompts_of("test", 1000)[: len(short)] == short
    for cut, whole in zip(tail.prompts_of("test", 1000)[:4], found, strict=True):
        assert cut.ids == whole.ids[-23:]

    rows = chat_rows()
    blocks = build_blocks(corpus_of(rows), causal_folder, 512)
    for row, prompt in zip(
        [r for r in rows if r["split"] == "test"], blocks.prompts_of("test", 100), strict=True
    ):
        chat = row["messages"]
        asked = tokenizer.apply_chat_template(chat[:-1], tokenize=False, add_generation_prompt=True)
        assert tokenizer.decode(prompt.ids) == asked
        assert prompt.reference == chat[-1]["content"]
    with pytest.raises(ConfigError, match="no prompts"):
        build_blocks(corpus_of(text_rows()), causal_folder, 512).prompts_of("test", 1)


def test_batches_count_the_positions_of_the_whole_global_batch(corpus_of, causal_folder):
    blocks = build_blocks(corpus_of(text_rows()), causal_folder, MAX_LENGTH)
    fillers = []
    rows = blocks.rows("train")[: 8 * 2 + 1]  # the last batch holds one block
    assert len(rows) == 17
    reference = Batches(blocks, rows, 8, seed=3)
    ranks = [Batches(blocks, rows, 8, 3, rank, 3, micro_batch_size=2) for rank in range(3)]
    for step in range(reference.steps_per_epoch):
        (whole,) = reference.at(step)
        padded = blocks.padded(whole.rows_B)
        assert torch.equal(whole.input_ids_BT, torch.from_numpy(padded.input_ids_BT))
        assert torch.equal(whole.position_ids_BT, torch.from_numpy(padded.position_ids_BT))
        assert whole.attention_mask_BT is None
        num_targets = int(blocks.num_targets(whole.rows_B).sum())
        assert whole.num_valid == whole.num_labelled == int(whole.targets_BT.sum()) == num_targets
        parts = [micro for rank in ranks for micro in rank.at(step)]
        assert sum(int(part.targets_BT.sum()) for part in parts) == num_targets
        assert {(p.num_valid, p.num_labelled) for p in parts} == {(num_targets, num_targets)}
        fillers = [part for part in parts if not part.valid_B.any()]
        assert all(not part.targets_BT.any() and part.input_ids_BT.numel() for part in fillers)
    assert len(fillers) == 5  # of 6 parts of the last step
