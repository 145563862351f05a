"""Packing moves sequences and changes none."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.data.packing import MAX_HELD, WINDOW_BLOCKS, best_fit, packed
from distill.data.sequences import Sequence


def sequence(row: int, size: int) -> Sequence:
    return Sequence(row, np.full(size, row, np.int32), np.ones(size, bool))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-1, 3), st.integers(1, 16)), max_size=120))
def test_every_sequence_is_in_one_block_of_its_domain(stream):
    sequences = [(domain, sequence(row, size)) for row, (domain, size) in enumerate(stream)]
    found = list(packed(iter(sequences), 16))
    placed = Counter((domain, s.row) for domain, block in found for s in block)
    assert placed == Counter((domain, s.row) for domain, s in sequences)
    for domain in {d for d, _ in stream}:
        used = [sum(len(s.ids) for s in block) for d, block in found if d == domain]
        assert max(used) <= 16
        # Two blocks that would fit into one would have been one.
        assert sum(sorted(used)[:2]) > 16 or len(used) == 1


def test_the_fullest_block_that_has_room_is_taken():
    sizes = [3, 6, 5, 7, 4, 2, 5]
    blocks = best_fit([sequence(row, size) for row, size in enumerate(sizes)], 10)
    assert [[len(s.ids) for s in block] for block in blocks] == [[7, 3], [6, 4], [5, 5], [2]]
    assert [s.row for s in blocks[2]] == [2, 6]  # of equal ones the earlier first


def test_without_packing_each_has_a_block_in_the_order_of_the_stream():
    stream = [(row % 2, sequence(row, 1 + row % 5)) for row in range(20)]
    found = list(packed(iter(stream), 16, is_packing=False))
    assert found == [(domain, [s]) for domain, s in stream]


def test_windows_bound_what_is_held_however_long_the_stream_and_many_the_domains():
    largest = held = 0

    def stream(num_domains, size):
        nonlocal held, largest
        for row in range(3 * num_domains * WINDOW_BLOCKS):
            held += size + 64
            largest = max(largest, held)
            yield row % num_domains, sequence(row, size)

    for num_domains, max_length in ((1, 128), (3, 128), (40, 2048)):
        held = largest = num_seen = 0
        for _, block in packed(stream(num_domains, max_length // 2), max_length):
            held -= sum(len(s.ids) + 64 for s in block)
            num_seen += len(block)
        assert num_seen == 3 * num_domains * WINDOW_BLOCKS
        window = num_domains * (WINDOW_BLOCKS + 1) * max_length
        assert largest <= min(window, MAX_HELD + max_length), (num_domains, largest)
