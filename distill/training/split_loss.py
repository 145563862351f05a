"""The loss of a chunk of positions, with the vocabulary in parts: no [n, V] exists either.

For vocabularies (and numbers of teachers) so large that not even a few positions fit. Three passes
over the columns, each of which computes the logits of the student and of all teachers again:

    1. log-sum-exps of the student and of the teachers, which turn any logit into its log p
    2. D = Σ_v f(log p_T, log p_S) and F = Σ_v f'(log p_T, log p_S), f' by log p_S
    3. the gradient by each logit, (f' − p_S · F) / T, and that of the cross-entropy

The product with each head takes three times as long as where rows fit, apart from gradients.

Shape suffixes: n positions of the chunk, C columns of one part, K teachers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from distill.aggregation.mixture import Space, log_weights, weighted_logits
from distill.objectives import Objective
from distill.objectives.divergence import weighted
from distill.objectives.likelihood import LabelLogp

LogitsOf = Callable[[slice], Tensor]
"""Columns -> their logits."""


class ChunkTeachers(NamedTuple):
    """The outputs of a chunk's teachers, and how they become one target."""

    logits_of: LogitsOf  # -> [K, n, C]
    weights_Kn: Tensor
    is_answered_n: Tensor  # bool: positions that count
    mix: Space
    objective: Objective  # elementwise
    temperature: float
    is_routed: bool = False  # whether a router needs their probability of the labels

    def scaled(self, logits_KnC: Tensor) -> Tensor:
        """[K, n, C] at the temperature; [1, n, C] where logits are what is mixed."""
        logits_KnC = logits_KnC / self.temperature
        if self.mix == "logits":
            return weighted_logits(self.weights_Kn, logits_KnC).sum(0, keepdim=True)
        return logits_KnC

    def logp(self, columns: slice, lse_Kn: Tensor) -> Tensor:
        """[n, C]: the target, as :func:`distill.aggregation.mixture.mix` computes it."""
        logp_KnC = self.scaled(self.logits_of(columns)) - lse_Kn[..., None]
        if self.mix == "logits":
            return logp_KnC[0]
        return torch.logsumexp(logp_KnC + log_weights(self.weights_Kn)[..., None], dim=0)


class SplitLoss:
    """α · c(T) · Σ D + (1 − α) · Σ CE of a chunk; see the module. It computes its own gradients.

    ``shares_n``: factors of the positions in ``value`` and its gradients; None: 1. ``kd`` and
    ``ce`` are sums without them.
    """

    def __init__(
        self,
        logits_of: LogitsOf,
        columns: list[slice],
        labels_n: Tensor,
        alpha: float,
        teachers: ChunkTeachers | None,
        shares_n: Tensor | None = None,
    ) -> None:
        self._labels_n, self._alpha, self._teachers = labels_n, alpha, teachers
        self._shares_n = shares_n
        self._is_labelled_n = labels_n >= 0
        with torch.no_grad():
            self._normalise(logits_of, columns)
            ce_n = self._lse_n - self._label_logit_n
            ce_n = torch.where(self._is_labelled_n, ce_n, 0.0)
            self.ce = ce_n.sum()
            self.hits = (self._choice_n == labels_n).sum()
        divergence_n, scale = torch.zeros_like(ce_n), 1.0
        if teachers is not None:
            divergence_n = self._compare(teachers, logits_of, columns)
            scale = teachers.objective.coefficient(teachers.temperature)
        self.kd = scale * divergence_n.sum()
        kd, ce = self.kd, self.ce
        if shares_n is not None:
            kd, ce = scale * (shares_n * divergence_n).sum(), (shares_n * ce_n).sum()
        self.value = weighted(alpha, kd) + weighted(1 - alpha, ce)

    def gradient(self, columns: slice, logits_nC: Tensor) -> Tensor:
        """[n, C]: of ``value`` by these logits."""
        grad_nC = self._of_each(columns, logits_nC)
        return grad_nC if self._shares_n is None else self._shares_n[:, None] * grad_nC

    def _of_each(self, columns: slice, logits_nC: Tensor) -> Tensor:
        at_nC = torch.arange(columns.start, columns.stop, device=logits_nC.device)[None]
        p_nC = (logits_nC - self._lse_n[:, None]).exp()
        hard_nC = p_nC - (at_nC == self._labels_n[:, None]).to(p_nC.dtype)
        grad_nC = (1 - self._alpha) * hard_nC * self._is_labelled_n[:, None]
        if (teachers := self._teachers) is None or self._alpha == 0:
            return grad_nC
        logp_S_nC = self._logp_S(logits_nC, teachers.temperature)
        _, slope_nC = self._terms(teachers, columns, logp_S_nC)
        soft_nC = (slope_nC - logp_S_nC.exp() * self._slope_n[:, None]) / teachers.temperature
        scale = teachers.objective.coefficient(teachers.temperature)
        return grad_nC + self._alpha * scale * soft_nC

    def _normalise(self, logits_of: LogitsOf, columns: list[slice]) -> None:
        """The first pass."""
        labels_n, teachers = self._labels_n, self._teachers
        lowest_n = logits_of(slice(0, 1))[:, 0].new_full(labels_n.shape, -torch.inf)
        lse_n = soft_n = label_logit_n = best_n = lowest_n
        choice_n = torch.full_like(labels_n, -1)
        lse_T_Kn: Tensor | None = None
        likelihood = LabelLogp(labels_n)
        for part in columns:
            logits_nC = logits_of(part)
            lse_n = torch.logaddexp(lse_n, logits_nC.logsumexp(1))
            inside_n = (labels_n >= part.start) & (labels_n < part.stop)
            within_n = (labels_n - part.start).clamp(0, part.stop - part.start - 1)
            found_n = logits_nC.gather(1, within_n[:, None])[:, 0]
            label_logit_n = torch.where(inside_n, found_n, label_logit_n)
            most_n, first_n = logits_nC.max(1)
            choice_n = torch.where(most_n > best_n, first_n + part.start, choice_n)
            best_n = torch.maximum(most_n, best_n)
            if teachers is not None:
                soft_n = torch.logaddexp(soft_n, (logits_nC / teachers.temperature).logsumexp(1))
                payload_KnC = teachers.logits_of(part)
                part_Kn = teachers.scaled(payload_KnC).logsumexp(2)
                lse_T_Kn = part_Kn if lse_T_Kn is None else torch.logaddexp(lse_T_Kn, part_Kn)
                if teachers.is_routed:
                    likelihood.add(payload_KnC, part)
        self._lse_n, self._soft_lse_n, self._lse_T_Kn = lse_n, soft_n, lse_T_Kn
        self._label_logit_n, self._choice_n = label_logit_n, choice_n
        is_routed = teachers is not None and teachers.is_routed
        self.label_logp_Kn = likelihood.value if is_routed else None

    def _compare(
        self, teachers: ChunkTeachers, logits_of: LogitsOf, columns: list[slice]
    ) -> Tensor:
        """The second pass: D [n]."""
        divergence_n = torch.zeros_like(self._lse_n)
        self._slope_n = torch.zeros_like(self._lse_n)
        for part in columns:
            logp_S_nC = self._logp_S(logits_of(part), teachers.temperature)
            terms_nC, slope_nC = self._terms(teachers, part, logp_S_nC)
            divergence_n += terms_nC.sum(1)
            self._slope_n += slope_nC.sum(1)
        return torch.where(teachers.is_answered_n, divergence_n, 0.0)

    def _logp_S(self, logits_nC: Tensor, temperature: float) -> Tensor:
        return logits_nC / temperature - self._soft_lse_n[:, None]

    def _terms(
        self, teachers: ChunkTeachers, columns: slice, logp_S_nC: Tensor
    ) -> tuple[Tensor, Tensor]:
        """f and f' [n, C]; f' is 0 at positions without an answer."""
        assert self._lse_T_Kn is not None
        logp_T_nC = teachers.logp(columns, self._lse_T_Kn)
        with torch.enable_grad():
            logp_S_nC = logp_S_nC.detach().requires_grad_()
            terms_nC = teachers.objective.terms_at(logp_T_nC, logp_S_nC, teachers.temperature)
            (slope_nC,) = torch.autograd.grad(terms_nC.sum(), logp_S_nC)
        return terms_nC.detach(), slope_nC * teachers.is_answered_n[:, None]
