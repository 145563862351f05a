"""KL divergences against mixtures of teacher and student.

Shape suffixes: N any block of valid rows, V classes or vocabulary. ``logp`` is log-space.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from distill.objectives.base import Divergence
from distill.objectives.divergence import kl_terms, log_mixture

if TYPE_CHECKING:
    from torch import Tensor


class SkewedForwardKL(Divergence):
    """KL(p_T ‖ λ·p_T + (1−λ)·p_S): finite also where the student has no probability.

    DistiLLM, Ko et al. 2024, arXiv 2402.03898.
    """

    type: Literal["skewed_forward_kl"] = "skewed_forward_kl"
    skew: float = Field(default=0.1, ge=0, lt=1)
    """λ, weight of p_T in the mixture; 0: the forward KL."""

    def terms(self, logp_T_NV: Tensor, logp_S_NV: Tensor) -> Tensor:
        return kl_terms(logp_T_NV, _mixed(logp_T_NV, logp_S_NV, self.skew))


class SkewedReverseKL(Divergence):
    """KL(p_S ‖ (1−λ)·p_T + λ·p_S): finite also where the teacher has no probability.

    DistiLLM, Ko et al. 2024, arXiv 2402.03898.
    """

    type: Literal["skewed_reverse_kl"] = "skewed_reverse_kl"
    skew: float = Field(default=0.1, ge=0, lt=1)
    """λ, weight of p_S in the mixture; 0: the reverse KL."""

    def terms(self, logp_T_NV: Tensor, logp_S_NV: Tensor) -> Tensor:
        return kl_terms(logp_S_NV, _mixed(logp_S_NV, logp_T_NV, self.skew))


def _mixed(logp_NV: Tensor, logq_NV: Tensor, skew: float) -> Tensor:
    """log(λ·p + (1−λ)·q), λ from 0."""
    return logq_NV if skew == 0 else log_mixture(logp_NV, logq_NV, skew)
