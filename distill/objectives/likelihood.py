"""The teachers' probability of the text itself, and the loss of a router trained on it.

Shape suffixes: K teachers, N positions, n some of them, C columns of the vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor


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


def mixture_nll(log_weights_KN: Tensor, label_logp_KN: Tensor, asked_KN: Tensor) -> Tensor:
    """−Σ_n log Σ_k w_kn p_k(y_n) in nats, over the positions that all teachers were queried for.

    Differentiable in the weights; 0 with a graph where there is no position.
    """
    together_N = asked_KN.all(0)
    return -torch.logsumexp(log_weights_KN + label_logp_KN, dim=0)[together_N].sum()
