import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.data.sampler import WINDOW, Sampler, permuted


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 3000), seed=st.integers(0, 2**40), epoch=st.integers(0, 5))
def test_permuted_is_a_permutation_and_pointwise(n, seed, epoch):
    whole = permuted(np.arange(n), n, seed, epoch)
    assert np.array_equal(np.sort(whole), np.arange(n))
    some = np.arange(n)[:: max(n // 7, 1)]
    assert np.array_equal(permuted(some, n, seed, epoch), whole[some])


def test_permuted_looks_random():
    """Every place holds every row about equally often: chi-square of an 8 × 8 table of counts."""
    n, draws = 64, 400
    counts = np.zeros((8, 8))
    for seed in range(draws):
        np.add.at(counts, (np.arange(n) // 8, permuted(np.arange(n), n, seed) // 8), 1)
    expected = draws  # 64 rows in 64 cells a draw
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert chi2 < 49 + 5 * np.sqrt(2 * 49)  # 49 degrees of freedom, five standard deviations
    neighbours = np.mean([np.diff(permuted(np.arange(n), n, s)) == 1 for s in range(draws)])
    assert neighbours == pytest.approx(1 / n, rel=0.15)


def _lengths(positions):
    return (positions * 7919) % 97


@pytest.mark.parametrize("lengths", [None, _lengths])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(
    ("num_rows", "batch_size"), [(1, 1), (10, 3), (8, 8), (701, 5), (9000, 17)]
)
def test_every_row_comes_once_an_epoch(num_rows, batch_size, shuffle, lengths):
    sampler = Sampler(num_rows, batch_size, 3, lengths, shuffle)
    for epoch in range(2):
        start = epoch * sampler.steps_per_epoch
        steps = [sampler.positions(start + s) for s in range(sampler.steps_per_epoch)]
        assert {len(step) for step in steps[:-1]} <= {batch_size}
        assert np.array_equal(np.sort(np.concatenate(steps)), np.arange(num_rows))


def test_a_step_asked_alone_is_the_step_reached():
    iterated = Sampler(5000, 7, 11, _lengths)
    for step in range(2 * iterated.steps_per_epoch):
        reached = iterated.positions(step)
        if step % 97 == 0 or step == iterated.steps_per_epoch - 1:
            assert np.array_equal(Sampler(5000, 7, 11, _lengths).positions(step), reached)


def test_epochs_and_seeds_differ_and_unshuffled_is_in_order():
    def epoch(seed: int, index: int) -> list[int]:
        sampler = Sampler(500, 10, seed)
        start = index * sampler.steps_per_epoch
        return np.concatenate([sampler.positions(start + s) for s in range(50)]).tolist()

    orders = [epoch(0, 0), epoch(0, 1), epoch(1, 0), epoch(1, 1)]
    assert len({tuple(order) for order in orders}) == 4
    plain = Sampler(25, 10, 0, _lengths, shuffle=False)
    assert [plain.positions(s).tolist() for s in (2, 3)] == [[*range(20, 25)], [*range(10)]]


def test_batches_hold_rows_of_like_length_in_no_order_of_length():
    num_rows, batch_size = WINDOW * 8 * 4, 8
    sampler = Sampler(num_rows, batch_size, 0, _lengths)
    lengths = np.stack([_lengths(sampler.positions(s)) for s in range(sampler.steps_per_epoch)])
    padded = (lengths.max(1) * batch_size).sum()
    assert padded < 1.05 * lengths.sum()
    window = lengths[:WINDOW].mean(1)
    assert abs(np.corrcoef(window, np.arange(WINDOW))[0, 1]) < 0.5


def test_a_step_costs_the_same_in_a_billion_rows():
    def asked(positions):
        assert len(positions) <= WINDOW * 32  # lengths of one window, never of all rows
        return _lengths(positions)

    sampler = Sampler(10**9, 32, 0, asked)
    tracemalloc.start()
    found = np.concatenate([sampler.positions(step) for step in (0, 10**7, 10**12)])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64e6  # a byte for each row would be a thousand
    assert len(np.unique(found)) == 96 and found.max() > 10**8
