"""Logit distillation between different tokenizers.

Shape suffixes: N positions, V the student's vocabulary or the teacher's, each its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from distill.objectives.base import Divergence
from distill.objectives.log_softmax import log_softmax_at
from distill.records import Target

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from distill.lazy_torch import torch


class UniversalLogits(Divergence):
    """Σ_i |p_T,(i) − p_S,(i)|, both sorted and the smaller vocabulary padded with zeros.

    Universal logit distillation, Boizard et al. 2024, arXiv 2402.12030: the Wasserstein distance
    between the two if moving probability between any two tokens has the same cost. Several teachers
    are combined as Σ w_k ULD_k, since their vocabularies differ. c(T) = T, as for total variation
    [ours: the paper has no temperature]: both are distances between probabilities, whose gradient
    has one factor 1/T.
    """

    is_elementwise: ClassVar[bool] = False
    mixes: ClassVar[bool] = False
    crosses_tokenizers: ClassVar[bool] = True
    tasks: ClassVar[tuple[str, ...]] = ("language_model",)
    type: Literal["uld"] = "uld"

    def scale(self, temperature: float) -> float:
        return temperature

    def __call__(self, student_logits_NV: Tensor, target: Target, temperature: float) -> Tensor:
        p_S_NV = log_softmax_at(student_logits_NV, temperature).exp()
        p_T_NV = target.logp_NV.exp()
        width = max(p_S_NV.shape[-1], p_T_NV.shape[-1])
        return (_sorted(p_T_NV, width) - _sorted(p_S_NV, width)).abs().sum(-1)


def _sorted(p_NV: Tensor, width: int) -> Tensor:
    falling_NV = torch.sort(p_NV, dim=-1, descending=True).values
    return torch.nn.functional.pad(falling_NV, (0, width - p_NV.shape[-1]))
