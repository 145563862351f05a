"""Divergences D(p_T, p_S) per row, at one temperature for teacher and student alike.

Shape suffixes: N any block of valid rows, V classes or vocabulary. ``logp`` is log-space.
Each returns D_N in nats; ``scale(T)`` is the c(T) that keeps the gradient's size independent of T.
Each is a sum over V of terms of its own, so it can be taken over any part of the vocabulary.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from distill.records import Target
from distill.tempered import log_softmax_at
from distill.variant import Variant

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from distill.lazy_torch import torch


def kl_terms(logp_NV: Tensor, logq_NV: Tensor) -> Tensor:
    """p log(p / q) of each class; 0·log 0 = 0, so a class that p rules out adds nothing."""
    p_NV = logp_NV.exp()
    return torch.where(p_NV > 0, p_NV * (logp_NV - logq_NV), 0.0)


def kl(logp_NV: Tensor, logq_NV: Tensor) -> Tensor:
    """KL(p ‖ q) per row."""
    return kl_terms(logp_NV, logq_NV).sum(-1)


class Divergence(Variant):
    """A divergence of the KL family: scaled by T² (Hinton et al. 2015, arXiv 1503.02531)."""

    is_elementwise: ClassVar[bool] = True
    """Whether it is a sum over V of ``terms``."""
    crosses_tokenizers: ClassVar[bool] = False
    """Whether teacher and student may have different vocabularies."""

    def scale(self, temperature: float) -> float:
        return temperature**2

    def terms(self, logp_T_NV: Tensor, logp_S_NV: Tensor) -> Tensor:
        """[N, V]: what each class adds, from its two log-probabilities alone."""
        raise NotImplementedError

    def __call__(self, student_logits_NV: Tensor, target: Target, temperature: float) -> Tensor:
        logp_S_NV = log_softmax_at(student_logits_NV, temperature)
        return self.terms(target.logp_NV, logp_S_NV).sum(-1)


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
        logp_m_NV = torch.logaddexp(
            logp_T_NV + math.log(self.beta), logp_S_NV + math.log1p(-self.beta)
        )
        to_teacher_NV = self.beta * kl_terms(logp_T_NV, logp_m_NV)
        return to_teacher_NV + (1 - self.beta) * kl_terms(logp_S_NV, logp_m_NV)


class TotalVariation(Divergence):
    """½ Σ |p_T − p_S|, scaled by T. f-distill, Wen et al. 2023, arXiv 2307.15190."""

    type: Literal["total_variation"] = "total_variation"

    def scale(self, temperature: float) -> float:
        return temperature

    def terms(self, logp_T_NV: Tensor, logp_S_NV: Tensor) -> Tensor:
        return 0.5 * (logp_T_NV.exp() - logp_S_NV.exp()).abs()
