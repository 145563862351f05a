"""A mean of forward and reverse KL whose weights depend on where the student differs.

Shape suffixes: N any block of valid rows, V classes or vocabulary. ``logp`` is log-space.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from distill.objectives.base import Divergence
from distill.objectives.divergence import kl
from distill.objectives.log_softmax import log_softmax_at
from distill.records import Target

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from distill.lazy_torch import torch


class AdaptiveKL(Divergence):
    """(g_h·KL(p_T ‖ p_S) + g_t·KL(p_S ‖ p_T)) / (g_h + g_t), g = Σ |p_T − p_S|, detached.

    g_h is over the head: the teacher's most probable class, and those after it while the sum of
    p_T is at most ``head_mass``. g_t is over the tail, all other classes. 0 where p_T = p_S.
    Adaptive KL (AKL), Wu et al. 2024, arXiv 2404.02657.
    """

    is_elementwise: ClassVar[bool] = False
    type: Literal["adaptive_kl"] = "adaptive_kl"
    head_mass: float = Field(default=0.5, gt=0, le=1)
    """Probability of the teacher in the head, at most; the most probable class always belongs to
    the head."""

    def __call__(self, student_logits_NV: Tensor, target: Target, temperature: float) -> Tensor:
        logp_T_NV = target.logp_NV
        logp_S_NV = log_softmax_at(student_logits_NV, temperature)
        with torch.no_grad():
            gap_NV = (logp_T_NV.exp() - logp_S_NV.exp()).abs()
            head_N = torch.where(self._in_head(logp_T_NV.exp()), gap_NV, 0.0).sum(-1)
            total_N = gap_NV.sum(-1)
            # Of equal distributions both divergences are 0, whatever their weights.
            share_N = head_N / total_N.clamp(min=torch.finfo(total_N.dtype).tiny)
        forward_N = _weighted(share_N, logp_T_NV, logp_S_NV)
        return forward_N + _weighted(1 - share_N, logp_S_NV, logp_T_NV)

    def _in_head(self, p_NV: Tensor) -> Tensor:
        falling = p_NV.sort(dim=-1, descending=True, stable=True)
        is_head_NV = falling.values.cumsum(-1) <= self.head_mass
        is_head_NV[:, 0] = True
        return torch.zeros_like(is_head_NV).scatter(-1, falling.indices, is_head_NV)


def _weighted(weight_N: Tensor, logp_NV: Tensor, logq_NV: Tensor) -> Tensor:
    """w·KL(p ‖ q); a row with w = 0 has value and gradient 0, also where its KL is infinite."""
    is_counted_N1 = (weight_N > 0)[:, None]
    return weight_N * kl(logp_NV, torch.where(is_counted_N1, logq_NV, logp_NV.detach()))
