"""Divergences D(p_T, p_S) per row, at one temperature for teacher and student alike.

Shape suffixes: N any block of valid rows, V classes or vocabulary. ``logp`` is log-space.
Each returns D_N, here in nats; ``scale(T)`` is the c(T) that keeps the gradient's size independent
of T. Those of this file are sums over V of terms, so each can be computed in parts of the
vocabulary.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from distill.objectives.base import Divergence

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from distill.lazy_torch import torch


def kl_terms(logp_NV: Tensor, logq_NV: Tensor) -> Tensor:
    """p log(p / q) of each class; 0·log 0 = 0, so a class that p rules out adds nothing.

    Nor has it a gradient, also where log p or log q is −∞ there.
    """
    p_NV = logp_NV.exp()
    if p_NV.device.type == "cpu" and p_NV.numel() and p_NV.detach().amin() > 0:
        return p_NV * (logp_NV - logq_NV)  # the same numbers in half as many passes
    # The gradient by p is the logarithm, so that has to be a number where p is 0.
    return p_NV * torch.where(p_NV > 0, logp_NV - logq_NV, 0.0)


def log_mixture(logp_NV: Tensor, logq_NV: Tensor, share: float) -> Tensor:
    """log(λ·p + (1−λ)·q), λ: ``share``, between 0 and 1. Where p and q are both 0 it is the lowest
    number of the dtype, with gradient 0: that of logaddexp(−∞, −∞) is NaN."""
    lowest = torch.finfo(logp_NV.dtype).min
    return torch.logaddexp(
        logp_NV.clamp(min=lowest) + math.log(share), logq_NV + math.log1p(-share)
    )


def kl(logp_NV: Tensor, logq_NV: Tensor) -> Tensor:
    """KL(p ‖ q) per row."""
    return kl_terms(logp_NV, logq_NV).sum(-1)


def weighted(weight: float, loss: Tensor) -> Tensor:
    """w · loss; of w = 0 a zero without a graph, also where the loss is infinite: 0 · ∞ is NaN."""
    return weight * loss if weight != 0 else torch.zeros_like(loss)


class ForwardKL(Divergence):
    """KL(p_T ‖ p_S): covers every mode of the teacher. Hinton et al. 2015, arXiv 1503.02531."""

    type: Literal["forward_kl"] = "forward_kl"

    def terms(self, logp_T_NV: Tensor, logp_S_NV: Tensor) -> Tensor:
        return kl_terms(logp_T_NV, logp_S_NV)


class ReverseKL(Divergence):
    """KL(p_S ‖ p_T): seeks the teacher's main mode. MiniLLM, Gu et al. 2023, arXiv 2306.08543."""

    type: Literal["reverse_kl"] = "reverse_kl"

    def terms(self, logp_T_NV: Tensor, logp_S_NV: Tensor) -> Tensor:
        return kl_terms(logp_S_NV, logp_T_NV)


class GeneralisedJSD(Divergence):
    """β·KL(p_T ‖ m) + (1−β)·KL(p_S ‖ m), m = β·p_T + (1−β)·p_S. GKD, arXiv 2306.13649."""

    type: Literal["jsd"] = "jsd"
    beta: float = Field(default=0.5, gt=0, lt=1)
    """Weight of the teacher in m, strictly between 0 and 1."""

    def terms(self, logp_T_NV: Tensor, logp_S_NV: Tensor) -> Tensor:
        logp_m_NV = log_mixture(logp_T_NV, logp_S_NV, self.beta)
        to_teacher_NV = self.beta * kl_terms(logp_T_NV, logp_m_NV)
        return to_teacher_NV + (1 - self.beta) * kl_terms(logp_S_NV, logp_m_NV)


class TotalVariation(Divergence):
    """½ Σ |p_T − p_S|, scaled by T. f-distill, Wen et al. 2023, arXiv 2307.15190."""

    type: Literal["total_variation"] = "total_variation"

    def scale(self, temperature: float) -> float:
        return temperature

    def terms(self, logp_T_NV: Tensor, logp_S_NV: Tensor) -> Tensor:
        return 0.5 * (logp_T_NV.exp() - logp_S_NV.exp()).abs()
