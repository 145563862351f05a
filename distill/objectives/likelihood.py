"""How probable the labels are under each teacher, and the loss of a network that is trained by it
(aggregation/trained.py).

Shape suffixes: K teachers, N positions, n some of them, C columns of the vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from distill.records import Mean


class LabelLogp:
    """log p_k(y_n) at temperature 1, from logits given some columns at a time."""

    def __init__(self, labels_n: Tensor) -> None:
        self._labels_n = labels_n
        self._lse_Kn: Tensor | None = None
        self._logit_Kn: Tensor | None = None

    def add(self, logits_KnC: Tensor, columns: slice) -> None:
        lse_Kn = logits_KnC.logsumexp(2)
        is_inside_n = (self._labels_n >= columns.start) & (self._labels_n < columns.stop)
        within_n = (self._labels_n - columns.start).clamp(0, logits_KnC.shape[2] - 1)
        places_Kn1 = within_n[None, :, None].expand(len(logits_KnC), -1, 1)
        found_Kn = logits_KnC.gather(2, places_Kn1)[..., 0]
        logit_Kn = torch.where(is_inside_n, found_Kn, -torch.inf)
        if self._lse_Kn is not None and self._logit_Kn is not None:
            lse_Kn = torch.logaddexp(self._lse_Kn, lse_Kn)
            logit_Kn = torch.where(is_inside_n, logit_Kn, self._logit_Kn)
        self._lse_Kn, self._logit_Kn = lse_Kn, logit_Kn

    @property
    def value(self) -> Tensor:
        """[K, n], once all columns have been added."""
        assert self._lse_Kn is not None and self._logit_Kn is not None
        return self._logit_Kn - self._lse_Kn


class Routes(NamedTuple):
    """A trained network's weights at a batch's positions; ``log_weights_KN`` has a gradient."""

    log_weights_KN: Tensor
    domain_teacher_N: Tensor  # int64: the teacher named like the position's domain, -1 without one

    def entropy(self) -> Tensor:
        """Σ_n H(w_n) in nats, differentiable."""
        return -(self.log_weights_KN.exp() * self.log_weights_KN).sum()

    @torch.no_grad()
    def metrics(self, nll: Tensor, num_labels: Tensor) -> dict[str, Mean]:
        """``nll``: the network's loss, a sum over ``num_labels`` positions. The accuracy is that of
        positions whose domain a teacher is named like."""
        log_weights_KN, domain_teacher_N = self
        count = torch.tensor(float(len(domain_teacher_N)), device=domain_teacher_N.device)
        is_right_N = log_weights_KN.argmax(0) == domain_teacher_N
        return {
            "router.loss": Mean(nll.detach(), num_labels),
            "router.entropy": Mean(self.entropy(), count),
            "router.accuracy": Mean(
                is_right_N.sum().float(), (domain_teacher_N >= 0).sum().float()
            ),
        }


def mixture_nll(log_weights_KN: Tensor, label_logp_KN: Tensor, counts_N: Tensor) -> Tensor:
    """−Σ_n log Σ_k w_kn p_k(y_n) in nats, over the positions where the bool ``counts_N`` is true.

    Differentiable in the weights; 0 with a graph where there is no position.
    """
    return -torch.logsumexp(log_weights_KN + label_logp_KN, dim=0)[counts_N].sum()
