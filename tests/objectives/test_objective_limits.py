"""c(T) · D of every objective at a high temperature against its limit, from series expansions.

p = softmax(z / T) = (1 + z̃ / T) / V + O(T⁻²), with z̃ the logits centred over the classes. Then
KL(a ‖ b) = ½ · V · Σ (a − b)² + O(T⁻³) (half of χ² around the uniform distribution), so that with
e = z̃_S − z̃_T: T² · KL → Σ e² / (2V), and T · ½ Σ |a − b| → Σ |e| / (2V). A factor c(T) that is
wrong by any power of T misses these limits by orders of magnitude.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
import torch

from distill.objectives import (
    AdaptiveKL,
    Comparative,
    CorrelationMatching,
    Cosine,
    Decoupled,
    Dist,
    ForwardKL,
    GeneralisedJSD,
    Objective,
    ReverseKL,
    RobustCorrelation,
    SkewedForwardKL,
    SkewedReverseKL,
    TotalVariation,
    UniversalLogits,
)
from distill.records import Target
from tests.objective_references import SINGLE, Array, ranks, rho, weighted_sum

N, V, HIGH = 6, 5, 1e3
GENERATOR = np.random.default_rng(0)
Z_T, Z_S = 2 * GENERATOR.standard_normal((N, V)), 2 * GENERATOR.standard_normal((N, V))
LABELS = np.array([3, 0, 1, 2, 0, 3])


def centred(z: Array) -> Array:
    return z - z.mean(-1, keepdims=True)


E = centred(Z_S) - centred(Z_T)
HALF_CHI = (E**2).sum(-1) / (2 * V)


def decoupled() -> Array:
    """b: two classes of 1/V and 1 − 1/V, q: V − 1 equal ones; weight 8."""
    found = []
    for e, y in zip(E, LABELS, strict=True):
        others = np.delete(e, y)
        binary = e[y] ** 2 / (2 * (V - 1))
        found.append(binary + 8 * (centred(others) ** 2).sum() / (2 * (V - 1)))
    return np.array(found)


def sorted_apart() -> Array:
    return np.abs(np.sort(centred(Z_S)) - np.sort(centred(Z_T))).sum(-1) / V


def by_rows(distance: Callable[[Array, Array], float], z_T: Array, z_S: Array) -> Array:
    return np.array([distance(a, b) for a, b in zip(z_T, z_S, strict=True)])


VALUES = by_rows(lambda a, b: 1 - rho(a, b), Z_T, Z_S)
ORDERS = by_rows(lambda a, b: 1 - rho(ranks(a), ranks(b)), Z_T, Z_S)
CLASSES = by_rows(lambda a, b: 1 - rho(a, b), centred(Z_T).T, centred(Z_S).T).mean()
PAIRS = np.mean([((E[i] - E[j]) ** 2).sum() for i, j in combinations(range(N), 2)])
LIMITS: dict[str, tuple[Objective, Array]] = {
    "forward_kl": (ForwardKL(), HALF_CHI),
    "reverse_kl": (ReverseKL(), HALF_CHI),
    "jsd": (GeneralisedJSD(), HALF_CHI / 4),  # β(1 − β), β = ½
    "jsd-0.2": (GeneralisedJSD(beta=0.2), 0.16 * HALF_CHI),
    "skewed_forward_kl": (SkewedForwardKL(), 0.81 * HALF_CHI),  # (1 − λ)², λ = 0.1
    "skewed_reverse_kl": (SkewedReverseKL(), 0.81 * HALF_CHI),
    "adaptive_kl": (AdaptiveKL(), HALF_CHI),
    "total_variation": (TotalVariation(), np.abs(E).sum(-1) / (2 * V)),
    "decoupled": (Decoupled(), decoupled()),
    "cosine": (Cosine(), by_rows(lambda a, b: 1 - rho(a, b), Z_T, Z_S)),
    "dist": (Dist(), VALUES + CLASSES),
    "cmkd": (CorrelationMatching(), 0.5 * VALUES + 0.5 * ORDERS),
    "r2kd": (RobustCorrelation(), VALUES + ORDERS),
    "comparative": (Comparative(), np.full(N, PAIRS)),
    "uld": (UniversalLogits(), sorted_apart()),
    "sum": (
        weighted_sum((0.5, "forward_kl"), (2, "total_variation"), (3, "cosine")),
        0.5 * HALF_CHI + 2 * np.abs(E).sum(-1) / (2 * V) + 3 * VALUES,
    ),
}


def test_every_objective_has_a_limit() -> None:
    assert SINGLE.keys() <= LIMITS.keys()


@pytest.mark.parametrize("name", LIMITS)
def test_scaled_divergences_have_the_limit_of_high_temperatures(name: str) -> None:
    """With the objective's defaults."""
    objective, expected = LIMITS[name]
    logp_NV = torch.log_softmax(torch.from_numpy(Z_T) / HIGH, -1)
    target = Target(logp_NV, torch.ones(1, N), torch.from_numpy(LABELS))
    found = objective.coefficient(HIGH) * objective(torch.from_numpy(Z_S), target, HIGH)
    if name == "comparative":  # the rows' parts differ; their mean is the batch's
        found = found.mean().expand(N)
    np.testing.assert_allclose(found, expected, rtol=2e-2)
    assert (expected > 0.01).all()
