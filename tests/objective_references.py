"""Every objective from its equation: float64 in numpy, row by row, class by class.

Shape suffixes: N rows, V classes.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_softmax

from distill.objectives import (
    AdaptiveKL,
    Comparative,
    CorrelationMatching,
    Cosine,
    Decoupled,
    Dist,
    ForwardKL,
    GeneralisedJSD,
    ReverseKL,
    RobustCorrelation,
    Single,
    SkewedForwardKL,
    SkewedReverseKL,
    TotalVariation,
    UniversalLogits,
    WeightedSum,
)

Array = NDArray[np.floating[Any]]
Reference = Callable[[Array, Array, NDArray[np.int64], float], Array]
"""(z_T [N, V], z_S [N, V], labels [N], T) -> D [N]."""


def softmax(z: Array) -> Array:
    return np.exp(log_softmax(z, -1))


def kl(p: Array, q: Array) -> float:
    return sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def rho(a: Array, b: Array) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def by_row(value: Callable[[Array, Array], float]) -> Reference:
    """Of p_T and p_S of a row."""

    def all_rows(z_T: Array, z_S: Array, labels: NDArray[np.int64], T: float) -> Array:
        pairs = zip(softmax(z_T / T), softmax(z_S / T), strict=True)
        return np.array([value(p, q) for p, q in pairs])

    return all_rows


def jsd(p: Array, q: Array) -> float:
    m = 0.3 * p + 0.7 * q
    return 0.3 * kl(p, m) + 0.7 * kl(q, m)


def adaptive(p: Array, q: Array) -> float:
    head, mass = [], 0.0
    for c in np.argsort(-p):
        mass += p[c]
        if not head or mass <= 0.5:
            head.append(c)
    gap = np.abs(p - q)
    in_head = gap[head].sum()
    in_tail = gap.sum() - in_head
    return (in_head * kl(p, q) + in_tail * kl(q, p)) / (in_head + in_tail)


def decoupled(z_T: Array, z_S: Array, labels: NDArray[np.int64], T: float) -> Array:
    found = []
    for p, q, y in zip(softmax(z_T / T), softmax(z_S / T), labels, strict=True):
        others = np.arange(len(p)) != y
        binary = kl(np.array([p[y], 1 - p[y]]), np.array([q[y], 1 - q[y]]))
        rest = kl(p[others] / p[others].sum(), q[others] / q[others].sum())
        found.append(binary + 8 * rest)
    return np.array(found)


def cosine(z_T: Array, z_S: Array, labels: NDArray[np.int64], T: float) -> Array:
    a, b = (z - z.mean(-1, keepdims=True) for z in (z_T, z_S))
    return 1 - (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def dist(z_T: Array, z_S: Array, labels: NDArray[np.int64], T: float) -> Array:
    p, q = softmax(z_T / T), softmax(z_S / T)
    rows = np.array([1 - rho(a, b) for a, b in zip(p, q, strict=True)])
    classes = np.mean([1 - rho(a, b) for a, b in zip(p.T, q.T, strict=True)])
    return rows + classes


def ranks(z: Array) -> Array:
    return np.array([0.5 + sum(expit((v - u) / 0.1) for u in z) for v in z])


def ranked(w_values: float, w_ranks: float) -> Reference:
    def all_rows(z_T: Array, z_S: Array, labels: NDArray[np.int64], T: float) -> Array:
        values = [1 - rho(p, q) for p, q in zip(softmax(z_T / T), softmax(z_S / T), strict=True)]
        orders = [1 - rho(ranks(a), ranks(b)) for a, b in zip(z_T, z_S, strict=True)]
        return w_values * np.array(values) + w_ranks * np.array(orders)

    return all_rows


def comparative(z_T: Array, z_S: Array, labels: NDArray[np.int64], T: float) -> Array:
    """Of the whole batch: every row has the mean over pairs."""
    d = z_S - z_T
    d = d - d.mean(-1, keepdims=True)
    pairs = [np.square(a - b).sum() for a, b in combinations(d, 2)]
    return np.full(len(d), np.mean(pairs))


SINGLE: dict[str, tuple[Single, Reference, Callable[[float], float]]] = {
    # objective, D, c(T)
    "forward_kl": (ForwardKL(), by_row(kl), lambda T: T * T),
    "reverse_kl": (ReverseKL(), by_row(lambda p, q: kl(q, p)), lambda T: T * T),
    "jsd": (GeneralisedJSD(beta=0.3), by_row(jsd), lambda T: T * T),
    "skewed_forward_kl": (
        SkewedForwardKL(),
        by_row(lambda p, q: kl(p, 0.1 * p + 0.9 * q)),
        lambda T: T * T,
    ),
    "skewed_reverse_kl": (
        SkewedReverseKL(),
        by_row(lambda p, q: kl(q, 0.9 * p + 0.1 * q)),
        lambda T: T * T,
    ),
    "adaptive_kl": (AdaptiveKL(), by_row(adaptive), lambda T: T * T),
    "total_variation": (
        TotalVariation(),
        by_row(lambda p, q: 0.5 * np.abs(p - q).sum()),
        lambda T: T,
    ),
    "decoupled": (Decoupled(), decoupled, lambda T: T * T),
    "cosine": (Cosine(), cosine, lambda T: 1),
    "dist": (Dist(), dist, lambda T: 1),
    "cmkd": (CorrelationMatching(), ranked(0.5, 0.5), lambda T: 1),
    "r2kd": (RobustCorrelation(), ranked(1, 1), lambda T: 1),
    "comparative": (Comparative(), comparative, lambda T: 1),
    "uld": (
        UniversalLogits(),
        by_row(lambda p, q: np.abs(np.sort(p) - np.sort(q)).sum()),
        lambda T: T,
    ),
}
"""By type: every objective is tested as in this list."""


def weighted_sum(*parts: tuple[float, str]) -> WeightedSum:
    members = [SINGLE[kind][0].model_copy(update={"weight": weight}) for weight, kind in parts]
    return WeightedSum(tuple(members))
