"""Random numbers that depend on their purpose alone, not on the time or on the other ranks.

Counters through the finaliser of splitmix64, as :func:`distill.data.splits.mix64`, in torch: the
same bits on every device. Bits of uint64 are held in int64.

Shape suffixes: M passes, B rows, T tokens, n tokens of a forward, E numbers drawn for each.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


def _signed(bits: int) -> int:
    return bits - (1 << 64) if bits >= 1 << 63 else bits


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_FIRST = _signed(0xBF58476D1CE4E5B9)
_SECOND = _signed(0x94D049BB133111EB)


def mixed(bits: Tensor) -> Tensor:
    """mix64 of int64 that hold the bits of uint64."""
    x = bits + _GOLDEN
    x = (x ^ _shifted(x, 30)) * _FIRST
    x = (x ^ _shifted(x, 27)) * _SECOND
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, places: int) -> Tensor:
    """To the right, zeros from the left; of int64 torch repeats the sign."""
    return (x >> places) & ((1 << (64 - places)) - 1)


def token_seeds(seed: int, num_passes: int, rows_B: np.ndarray, num_tokens: int) -> Tensor:
    """int64[M, B, T]: of each token, by request seed, pass, row id and place in the row."""
    start = mixed(torch.tensor(_signed(seed % (1 << 64))))
    passes_M = mixed(start + torch.arange(num_passes))
    rows_MB = mixed(passes_M[:, None] + torch.from_numpy(rows_B.astype(np.int64)))
    return mixed(rows_MB[..., None] + torch.arange(num_tokens))


def uniforms(seeds_n: Tensor, num: int) -> Tensor:
    """float64[n, E] inside (0, 1)."""
    counters_nE = mixed(seeds_n)[:, None] + torch.arange(num, device=seeds_n.device)
    return (_shifted(mixed(counters_nE), 11).double() + 0.5) * 2.0**-53


def normals(seeds_n: Tensor, num: int) -> Tensor:
    """float64[n, E] of N(0, 1)."""
    return math.sqrt(2) * torch.erfinv(2 * uniforms(seeds_n, num) - 1)


def without_replacement(logits_nE: Tensor, uniforms_nE: Tensor, num: int) -> Tensor:
    """int64[n, num]: as torch.multinomial(softmax(logits), num) draws, one after the other.

    The largest of logits + Gumbel noise are such a draw (Plackett and Luce; Kool et al. 2019).
    """
    return (logits_nE.double() - (-uniforms_nE.log()).log()).topk(num, dim=1).indices
