"""Sequences of one domain into blocks of at most ``max_length`` tokens, as a stream.

Best-fit decreasing [Johnson et al. 1974] inside a window: the sequences of a domain are collected
until they would fill about 256 blocks; then, longest first, each goes into the fullest block that
has room. Memory is that of the windows, whatever the data; the result is a function of the stream.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator

from distill.data.sequences import Sequence

WINDOW_BLOCKS = 256
MAX_HELD = 1 << 22  # cost of all windows together: 4 bytes and a mask a token
_OVERHEAD = 64  # tokens of memory that a held sequence takes besides its own

Block = list[Sequence]


def packed(
    sequences: Iterable[tuple[int, Sequence]], max_length: int, is_packing: bool = True
) -> Iterator[tuple[int, Block]]:
    """(domain, sequences of a block) of a stream of (domain, sequence).

    Every sequence is in one block, of its own domain. ``is_packing`` False: in one of its own, in
    the order of the stream.
    """
    if not is_packing:
        yield from ((domain, [sequence]) for domain, sequence in sequences)
        return
    held: defaultdict[int, Block] = defaultdict(list)
    costs: defaultdict[int, int] = defaultdict(int)
    total = 0
    for domain, sequence in sequences:
        held[domain].append(sequence)
        cost = len(sequence.ids) + _OVERHEAD
        costs[domain] += cost
        total += cost
        if costs[domain] < WINDOW_BLOCKS * max_length:
            if total < MAX_HELD:
                continue
            domain = max(costs, key=lambda d: (costs[d], d))
        total -= costs.pop(domain)
        yield from ((domain, block) for block in best_fit(held.pop(domain), max_length))
    for domain in sorted(held):
        yield from ((domain, block) for block in best_fit(held[domain], max_length))


def best_fit(sequences: Block, max_length: int) -> list[Block]:
    """Blocks of at most ``max_length`` tokens, by best-fit decreasing; ties in the given order."""
    blocks: list[Block] = []
    rooms: list[tuple[int, int]] = []  # (tokens that still fit, block), sorted
    for sequence in sorted(sequences, key=lambda s: -len(s.ids)):  # stable
        size = len(sequence.ids)
        assert 0 < size <= max_length
        place = bisect_left(rooms, (size, 0))
        if place == len(rooms):
            room, index = max_length, len(blocks)
            blocks.append([])
        else:
            room, index = rooms.pop(place)
        blocks[index].append(sequence)
        if room > size:
            left = (room - size, index)
            rooms.insert(bisect_left(rooms, left), left)
    return blocks
