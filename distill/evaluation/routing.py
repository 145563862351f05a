"""Which experts a router chose, how evenly it loads them, and its confidence.

Shape suffixes: R rows of a split, P positions of a batch, K experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distill.aggregation import Routed
from distill.records import RoutingInputs


@dataclass(frozen=True)
class Routing:
    """One split's rows through a router."""

    names: tuple[str, ...]
    probs_RK: np.ndarray  # float64, rows sum to 1
    is_chosen_RK: np.ndarray  # bool, k in each row
    domains_R: np.ndarray  # int64, -1 where there is none
    domain_names: tuple[str, ...]

    @property
    def load_K(self) -> np.ndarray:
        """Share of all selections that each expert has; sums to 1, even at 1/K each."""
        return self.is_chosen_RK.mean(0) / self.is_chosen_RK.sum(1)[0]

    @property
    def confidence_R(self) -> np.ndarray:
        """The largest probability of each row, in [1/K, 1]."""
        return self.probs_RK.max(1)

    def load_by_domain(self) -> dict[str, np.ndarray]:
        """By domain, its rows' part of :attr:`load_K`; all of them sum to it."""
        selections_RK = self.is_chosen_RK / self.is_chosen_RK.sum()
        named = enumerate(self.domain_names)
        parts = {name: selections_RK[self.domains_R == d].sum(0) for d, name in named}
        parts["no domain" if self.domain_names else "all rows"] = selections_RK[
            self.domains_R < 0
        ].sum(0)
        return {name: load_K for name, load_K in parts.items() if load_K.sum() > 0}

    def metrics(self, domain_teacher_R: np.ndarray | None = None) -> dict[str, float]:
        """Stable names. ``domain_teacher_R``: the expert of each row's part, -1 where it has none;
        such rows do not count in the accuracy, the share of rows whose most probable expert it
        is."""
        loads = zip(self.names, self.load_K.tolist(), strict=True)
        metrics = {f"router.load.{name}": load for name, load in loads}
        metrics["router.confidence"] = float(self.confidence_R.mean())
        if domain_teacher_R is not None and (domain_teacher_R >= 0).any():
            is_in_domain_R = self.probs_RK.argmax(1) == domain_teacher_R
            metrics["router.accuracy"] = float(is_in_domain_R[domain_teacher_R >= 0].mean())
        return metrics


def routing_of(
    routed: Routed,
    names: Sequence[str],
    router_logits_RK: np.ndarray,
    domains_R: np.ndarray,
    domain_names: Sequence[str],
) -> Routing:
    """The choices of ``routed`` for rows with these raw router logits."""
    logits_RK = torch.from_numpy(router_logits_RK)
    nowhere_R = torch.full((len(logits_RK),), -1)
    chosen_KR = routed.choose(RoutingInputs(tuple(names), nowhere_R, logits_RK))
    return Routing(
        names=tuple(names),
        probs_RK=logits_RK.double().softmax(1).numpy(),
        is_chosen_RK=chosen_KR.T.numpy(),
        domains_R=domains_R,
        domain_names=tuple(domain_names),
    )


class MeanWeights:
    """The mean of trained weights of teachers, by domain; sums over positions (of a classifier, its
    rows).

    The names are those of :meth:`Routing.metrics`, where a load is a share of the weight.
    """

    def __init__(self, names: tuple[str, ...], domain_names: tuple[str, ...]) -> None:
        self.names = names
        self._domain_names = domain_names
        self._load_DK = torch.zeros(len(domain_names) + 1, len(names), dtype=torch.float64)
        self._confidence = 0.0
        self._num_right = self._num_known = 0

    def add(self, weights_KP: Tensor, domain_teacher_P: Tensor, domains_P: Tensor) -> None:
        """``domain_teacher_P``: the teacher of each position's domain, ``domains_P`` that; -1:
        none."""
        self._load_DK.index_add_(0, domains_P % len(self._load_DK), weights_KP.T.double())
        self._confidence += float(weights_KP.amax(0).double().sum())
        self._num_right += int((weights_KP.argmax(0) == domain_teacher_P).sum())
        self._num_known += int((domain_teacher_P >= 0).sum())

    def by_domain(self) -> dict[str, list[float]]:
        """The mean weights of the teachers over all positions (``all``) and in each domain."""
        shares = {"all": (self._load_DK.sum(0) / self._load_DK.sum()).tolist()}
        for d, domain in enumerate(self._domain_names):
            total = self._load_DK[d].sum()  # the weights of a position sum to 1
            if total > 0:
                shares[domain] = (self._load_DK[d] / total).tolist()
        return shares

    def metrics(self) -> dict[str, float]:
        total_D = self._load_DK.sum(1)  # the weights of a position sum to 1
        num_positions = float(total_D.sum())
        loads = zip(self.names, (self._load_DK.sum(0) / num_positions).tolist(), strict=True)
        metrics = {f"router.load.{name}": load for name, load in loads}
        metrics["router.confidence"] = self._confidence / num_positions
        if self._num_known:
            metrics["router.accuracy"] = self._num_right / self._num_known
        for d, domain in enumerate(self._domain_names):
            if total_D[d] > 0:
                shares = zip(self.names, (self._load_DK[d] / total_D[d]).tolist(), strict=True)
                metrics |= {f"router.load.{name}.{domain}": share for name, share in shares}
        return metrics
