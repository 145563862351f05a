"""Which split a row is in, and which rows a limit keeps. Both by hashing, so both stream."""

from __future__ import annotations

import hashlib

import numpy as np

from distill.config import SPLITS, Holdout

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def split_of(key: str, holdout: Holdout) -> int:
    """Index into SPLITS: a hash of ``key`` in [0, 1) falls into one of the fractions.

    Independent of the seed, of the other rows and of their order: a row that is in the test
    split today stays there when the data grows.
    """
    point = seed_of(key) / 2**64
    edge = 0.0
    for name in ("test", "validation", "transfer"):
        edge += getattr(holdout, name)
        if point < edge:
            return SPLITS.index(name)
    return SPLITS.index("train")


def mix64(values: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64, a bijection of uint64 (Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        x = values.astype(np.uint64) + _GOLDEN
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def row_hashes(seed: int, split: int, positions: np.ndarray) -> np.ndarray:
    """uint64[n]: the order in which a limit takes the rows of a split. No two are equal."""
    return mix64(positions.astype(np.uint64) ^ np.uint64(seed_of(f"{seed}/{split}")))


def seed_of(text: str) -> int:
    """64 bits: the same text in any process has the same ones, two texts have others."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


class Smallest:
    """Keeps the ``limit`` smallest hashes of a stream, in memory of 2 · limit numbers."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = np.empty(0, np.uint64)
        self._largest: np.uint64 | None = None

    def offer(self, hashes: np.ndarray) -> np.ndarray:
        """bool[n]: False for rows that are certainly not among the smallest."""
        maybe = np.ones(len(hashes), bool) if self._largest is None else hashes <= self._largest
        self._kept = np.concatenate([self._kept, hashes[maybe]])
        if len(self._kept) > 2 * self._limit:
            self._shrink()
        return maybe

    def joined(self, other: Smallest) -> Smallest:
        """Of both streams, which have the same limit."""
        both = Smallest(self._limit)
        both.offer(np.concatenate([self._kept, other._kept]))
        return both

    def threshold(self) -> np.uint64:
        """The largest hash that is kept, once the stream has ended."""
        if len(self._kept) > self._limit:
            self._shrink()
        return self._kept.max() if len(self._kept) else np.uint64(0)

    def _shrink(self) -> None:
        self._kept = np.partition(self._kept, self._limit - 1)[: self._limit]
        self._largest = self._kept.max()
