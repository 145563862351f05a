"""Differences between rows: the student has to change from row to row as the teacher does.

Shape suffixes: N any block of valid rows, V classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from distill.objectives.base import Divergence
from distill.objectives.correlation import target_logits
from distill.objectives.log_softmax import finite
from distill.records import Target

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from distill.lazy_torch import torch


class Comparative(Divergence):
    """Mean over pairs of rows of ‖(z_S,i − z_S,j) − (z_T,i − z_T,j)‖² = 2/(n−1) · Σ ‖d_i − d̄‖².

    d = z_S − z_T, centred over the classes of each row [ours: the target is known as
    log-probabilities, logits up to a constant]; the temperature has no effect, c(T) = 1. It needs
    the whole batch at once; of one row it is 0. Returned per row: n times its part of the sum.
    Comparative knowledge distillation, Wilf et al. 2023, arXiv 2311.02253; the square is ours.
    """

    is_elementwise: ClassVar[bool] = False
    type: Literal["comparative"] = "comparative"

    @property
    def couples_rows(self) -> bool:
        return True

    def scale(self, temperature: float) -> float:
        return 1.0

    def __call__(self, student_logits_NV: Tensor, target: Target, temperature: float) -> Tensor:
        z_T_NV, counts_NV = target_logits(target, temperature)
        d_NV = torch.where(counts_NV, finite(student_logits_NV) - z_T_NV, 0.0)
        mean_N1 = d_NV.sum(-1, keepdim=True) / counts_NV.sum(-1, keepdim=True)
        d_NV = torch.where(counts_NV, d_NV - mean_N1, 0.0)
        num_rows = len(d_NV)
        apart_N = (d_NV - d_NV.mean(0)).square().sum(-1)
        return 2 * num_rows / max(1, num_rows - 1) * apart_N
