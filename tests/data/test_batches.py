import numpy as np
import pytest
import torch
from data_rows import make_rows, write

from distill.data.batches import Batches
from distill.data.corpus import build_corpus
from distill.data.tokens import tokenise
from distill.errors import DataError
from distill.records import UNLABELLED


@pytest.fixture(scope="module")
def tokens(tmp_path_factory, tokenizer_folder):
    from distill.config import Data

    folder = tmp_path_factory.mktemp("batches")
    path = write(make_rows(300), folder / "rows.parquet")
    config = Data.model_validate(
        {
            "path": str(path),
            "cache_dir": str(folder / "cache"),
            "columns": {"domain": "domain", "split": "split"},
        }
    )
    return tokenise(build_corpus(config), tokenizer_folder, 24)


def _valid_rows(batches: list) -> list[int]:
    return [int(r) for b in batches for r in b.rows_B[b.valid_B.numpy()]]


@pytest.mark.parametrize("micro_batch_size", [None, 1, 3])
def test_every_world_size_sees_the_same_global_batches(tokens, micro_batch_size):
    rows = range(0, 157)  # train and some transfer rows, so that the last batch is short
    reference = Batches(tokens, rows, 12, seed=4)
    for world_size in (1, 2, 3, 4):
        ranks = [
            Batches(tokens, rows, 12, 4, rank, world_size, micro_batch_size)
            for rank in range(world_size)
        ]
        for step in range(2 * reference.steps_per_epoch):
            (whole,) = reference.at(step)
            parts = [micro for rank in ranks for micro in rank.at(step)]
            assert len(parts) == world_size * ranks[0].num_micro_batches
            assert _valid_rows(parts) == whole.rows_B.tolist()
            assert {p.num_valid for p in parts} == {len(whole.rows_B)}
            assert {p.num_labelled for p in parts} == {int((whole.labels_B >= 0).sum())}
            if micro_batch_size is not None:
                assert max(len(p.rows_B) for p in parts) <= micro_batch_size


def test_every_row_comes_once_an_epoch_over_ranks_and_micro_batches(tokens):
    rows = np.array([5, 3, 200, 77, 9, 10, 11, 260, 42, 43, 44])
    ranks = [Batches(tokens, rows, 4, 0, rank, 3, 1) for rank in range(3)]
    for epoch in range(3):
        steps = range(epoch * 3, epoch * 3 + 3)
        seen = [r for s in steps for rank in ranks for r in _valid_rows(rank.at(s))]
        assert sorted(seen) == sorted(rows.tolist())


def test_a_part_without_rows_is_one_invalid_unlabelled_row(tokens):
    ranks = [Batches(tokens, range(5), 4, 0, rank, 4) for rank in range(4)]
    last = [rank.at(1) for rank in ranks]  # the fifth row alone
    assert [len(parts) for parts in last] == [1, 1, 1, 1]
    assert [part.valid_B.tolist() for (part,) in last] == [[True], [False], [False], [False]]
    for (part,) in last[1:]:
        assert part.labels_B.tolist() == [UNLABELLED]
        assert part.attention_mask_BT.sum() > 0  # a model can run on it
        assert (part.num_valid, part.num_labelled) == (1, 1)


def test_a_resumed_rank_goes_on_where_it_stopped(tokens):
    first = Batches(tokens, range(120), 7, 9, rank=1, world_size=2, micro_batch_size=2)
    run = [first.at(step) for step in range(40)]
    resumed = Batches(tokens, range(120), 7, 9, rank=1, world_size=2, micro_batch_size=2)
    for step in (25, 26, 39):
        for a, b in zip(resumed.at(step), run[step], strict=True):
            assert np.array_equal(a.rows_B, b.rows_B)
            assert torch.equal(a.input_ids_BT, b.input_ids_BT)
            assert torch.equal(a.labels_B, b.labels_B)


def test_rows_carry_their_own_tokens_labels_and_domains(tokens):
    corpus = tokens.corpus
    batches = Batches(tokens, range(300), 16, 1, shuffle=True)
    for step in range(batches.steps_per_epoch):
        (batch,) = batches.at(step)
        padded = tokens.padded(batch.rows_B)
        assert np.array_equal(batch.input_ids_BT.numpy(), padded.input_ids_BT)
        assert np.array_equal(batch.attention_mask_BT.numpy(), padded.attention_mask_BT)
        assert np.array_equal(batch.labels_B.numpy(), corpus.labels_of(batch.rows_B))
        assert np.array_equal(batch.domains_B.numpy(), corpus.domains_of(batch.rows_B))
        real = batch.attention_mask_BT.bool()
        assert (batch.input_ids_BT[~real] == tokens.pad_id).all()
        assert torch.equal(real.sum(1), torch.from_numpy(tokens.lengths(batch.rows_B)))


def test_given_labels_go_with_their_rows(tokens):
    rows = np.arange(40, 80)
    batches = Batches(tokens, rows, 8, 2, labels=rows * 10)
    for step in range(batches.steps_per_epoch):
        (batch,) = batches.at(step)
        assert batch.labels_B.tolist() == (batch.rows_B * 10).tolist()
        assert batch.num_labelled == 8


def test_unshuffled_rows_come_in_order_in_one_short_batch(tokens):
    (batch,) = Batches(tokens, range(20, 30), 64, 0, shuffle=False).at(0)
    assert batch.rows_B.tolist() == list(range(20, 30))


def test_too_few_rows_are_refused(tokens):
    with pytest.raises(DataError, match=r"trainer\.batch_size must be at most the 10 .* got 11"):
        Batches(tokens, range(10), 11, 0)
    with pytest.raises(DataError, match="no rows"):
        Batches(tokens, range(0), 1, 0)
