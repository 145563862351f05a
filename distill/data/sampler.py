"""Which rows make the batch of a step: a pure function of (seed, epoch, step).

No state means nothing to save: a resumed run, another world size or a teacher queried ahead of time
computes the same batch. Nothing grows with the data: a step costs one window.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

from distill.data.splits import mix64

WINDOW = 64  # batches that are sorted by length together
_ROUNDS = 8
_MIN_HALF_BITS = 3  # the network mixes too little over fewer than 64 values


def permuted(positions: np.ndarray, n: int, *key: int) -> np.ndarray:
    """int64: where a pseudo-random permutation of [0, n) sends ``positions``.

    A balanced Feistel network over the next power of 4 (Luby and Rackoff 1988), its round function
    the finaliser of splitmix64, repeated until the value falls below n (cycle walking, Black and
    Rogaway 2002): below n that is again a permutation. The expected number of walks is below 4 for
    n > 16. Statistical quality, not a cipher: any row can follow any other, but of the n!
    orders only 2^64 can occur, one for each key.
    """
    assert n > 0
    half = np.uint64(max(_MIN_HALF_BITS, ((n - 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half)) - 1)
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8 * _ROUNDS).digest()
    keys = np.frombuffer(digest, "<u8").astype(np.uint64)
    values = positions.astype(np.uint64)
    walking = np.arange(len(values))
    while len(walking):
        left, right = values[walking] >> half, values[walking] & mask
        for key_r in keys:
            left, right = right, left ^ (mix64(right ^ key_r) & mask)
        values[walking] = (left << half) | right
        walking = walking[values[walking] >= n]
    return values.astype(np.int64)


class Sampler:
    """Batches of positions in [0, num_rows): every position once an epoch.

    The rows of an epoch are permuted, cut into windows of 64 batches, and with ``lengths`` (tokens
    at given positions) each window is sorted by length, so that a batch holds rows of like length
    and little padding; the batches of a window then come in random order. So a row's batch-mates
    are random among rows of its length, and a row moves at most a window from its permuted place.
    If batch_size does not divide num_rows, the last batch of the epoch is short, its rows
    of any length. ``shuffle=False`` gives positions in order, unsorted.

    Time and memory of a step: O(64 · batch_size), whatever the step and num_rows. The last window
    is remembered, which changes the speed only.
    """

    def __init__(
        self,
        num_rows: int,
        batch_size: int,
        seed: int,
        lengths: Callable[[np.ndarray], np.ndarray] | None = None,
        shuffle: bool = True,
    ) -> None:
        assert num_rows > 0 and batch_size > 0
        self.num_rows = num_rows
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.steps_per_epoch = -(-num_rows // batch_size)
        self._lengths = lengths
        self._window: tuple[int, int, np.ndarray] | None = None  # epoch, index, rows in order

    def positions(self, step: int) -> np.ndarray:
        """int64[<= batch_size] of a step, counted from 0 over all epochs."""
        epoch, step = divmod(step, self.steps_per_epoch)
        start = step * self.batch_size
        stop = min(start + self.batch_size, self.num_rows)
        if not self.shuffle:
            return np.arange(start, stop)
        index = step // WINDOW
        window = self._window  # read once: several threads look ahead, in different windows
        if window is None or window[:2] != (epoch, index):
            window = self._window = (epoch, index, self._ordered(epoch, index))
        offset = index * WINDOW * self.batch_size
        return window[2][start - offset : stop - offset]

    def _ordered(self, epoch: int, index: int) -> np.ndarray:
        """Positions of one window, its batches one after another."""
        start = index * WINDOW * self.batch_size
        stop = min(start + WINDOW * self.batch_size, self.num_rows)
        window = permuted(np.arange(start, stop), self.num_rows, self.seed, epoch)
        num_whole = len(window) // self.batch_size
        if self._lengths is None or num_whole == 0:
            return window
        # The short batch keeps its random rows: sorted in, it would always get the longest.
        whole, short = np.split(window, [num_whole * self.batch_size])
        # Stable: rows of one length stay in permuted order, not in that of a file sorted by topic.
        batches = whole[np.argsort(self._lengths(whole), kind="stable")]
        order = permuted(np.arange(num_whole), num_whole, self.seed, epoch, index)
        batches = batches.reshape(num_whole, self.batch_size)[order]
        return np.concatenate([batches.reshape(-1), short])
