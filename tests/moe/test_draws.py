"""Random numbers of experts against integers of any size, and statistics with stated bounds.

Shape suffixes: M passes, B rows, T tokens, n tokens of a forward, E numbers of each.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch

from distill.moe import draws
from tests.sampling.test_draw import WORD, splitmix64


def signed(bits: int) -> int:
    return bits - WORD if bits >= WORD // 2 else bits


def uniform_of(token_seed: int, number: int) -> float:
    """Inside (0, 1): the middle of one of 2^53 equal parts."""
    bits = splitmix64((splitmix64(token_seed % WORD) + number) % WORD)
    return ((bits >> 11) + 0.5) / 2**53


def seed_of(seed: int, number_of_pass: int, row: int, place: int) -> int:
    found = splitmix64(seed % WORD)
    for part in (number_of_pass, row, place):
        found = splitmix64((found + part) % WORD)
    return found


def test_token_seeds_are_a_counter_of_request_pass_row_and_place() -> None:
    rows = [0, 7, 2**40]
    for seed in (0, 5, 2**63, 2**64 + 3, -1):
        seeds_MBT = draws.token_seeds(seed, 2, np.array(rows), 4)
        assert seeds_MBT.dtype == torch.int64 and seeds_MBT.shape == (2, 3, 4)
        assert seeds_MBT.tolist() == [
            [[signed(seed_of(seed, m, row, t)) for t in range(4)] for row in rows] for m in range(2)
        ]


SEEDS_N = draws.token_seeds(11, 1, np.arange(40), 50).flatten()
TOKEN_SEEDS = SEEDS_N.tolist()


def test_uniforms_and_normals_are_those_of_the_counter() -> None:
    found = draws.uniforms(SEEDS_N[:200], 3)
    expected = [[uniform_of(s, e) for e in range(3)] for s in TOKEN_SEEDS[:200]]
    assert found.dtype == torch.float64 and found.tolist() == expected
    assert float(found.min()) > 0 and float(found.max()) < 1
    normals = draws.normals(SEEDS_N[:200], 3)
    quantile = NormalDist().inv_cdf
    by_quantile = torch.tensor([[quantile(u) for u in row] for row in expected])
    torch.testing.assert_close(normals.float(), by_quantile, rtol=1e-5, atol=1e-6)


def test_uniforms_and_normals_have_their_moments() -> None:
    """Of 6,000 numbers, mean and variance within 5 standard errors; neighbours uncorrelated."""
    uniforms, normals = draws.uniforms(SEEDS_N, 3), draws.normals(SEEDS_N, 3)
    num = uniforms.numel()
    assert float(uniforms.mean()) == pytest.approx(0.5, abs=5 / math.sqrt(12 * num))
    assert float(uniforms.var()) == pytest.approx(1 / 12, abs=5 / math.sqrt(180 * num))
    assert float(normals.mean()) == pytest.approx(0, abs=5 / math.sqrt(num))
    assert float(normals.var()) == pytest.approx(1, abs=5 * math.sqrt(2 / num))
    for numbers in (uniforms, normals):
        corr = torch.corrcoef(numbers.T) - torch.eye(3)
        assert float(corr.abs().max()) < 5 / math.sqrt(len(numbers))


def in_sequence(logits: list[float], uniforms: list[float], num: int) -> list[int]:
    """The largest of logits + Gumbel noise −log(−log u), one after the other."""
    noisy = {e: z - math.log(-math.log(u)) for e, (z, u) in enumerate(zip(logits, uniforms))}  # noqa: B905
    return sorted(noisy, key=lambda e: -noisy[e])[:num]


def test_draws_without_replacement_are_the_largest_noisy_logits() -> None:
    logits_nE = torch.randn(300, 5, generator=torch.Generator().manual_seed(0))
    uniforms_nE = draws.uniforms(SEEDS_N[:300], 5)
    for num in (1, 3, 5):
        found = draws.without_replacement(logits_nE, uniforms_nE, num)
        assert found.shape == (300, num)
        assert found.tolist() == [
            in_sequence(*pair, num)
            for pair in zip(logits_nE.tolist(), uniforms_nE.tolist(), strict=True)
        ]


def test_odds_are_those_of_multinomial_draws() -> None:
    """Of 2,000 ordered pairs, each within 4.5 standard deviations of p_i · p_j / (1 − p_i)."""
    p = torch.tensor([0.5, 0.3, 0.15, 0.05])
    num = len(SEEDS_N)
    found = draws.without_replacement(p.log().expand(num, -1), draws.uniforms(SEEDS_N, 4), 2)
    for i in range(4):
        for j in range(4):
            odds = 0.0 if i == j else float(p[i] * p[j] / (1 - p[i]))
            count = int(((found[:, 0] == i) & (found[:, 1] == j)).sum())
            assert abs(count - num * odds) <= 4.5 * math.sqrt(num * odds * (1 - odds))
