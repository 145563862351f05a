"""The divergence split into the labelled class and the others.

Shape suffixes: N any block of valid rows, V classes or vocabulary. ``logp`` is log-space.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from distill.objectives.base import Divergence
from distill.objectives.divergence import kl, weighted
from distill.objectives.log_softmax import log_softmax_at, logsumexp
from distill.records import Target

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from distill.lazy_torch import torch


class Decoupled(Divergence):
    """KL(b_T ‖ b_S) + β·KL(q_T ‖ q_S), b = (p_y, 1 − p_y), q = p over the classes other than y.

    y is the label: of a language model the next token. Rows without a label: the most probable
    class of the target [ours]. With β = 1 − p_T,y it would be the forward KL. Decoupled knowledge
    distillation (DKD), Zhao et al. 2022, arXiv 2203.08679. The paper uses T = 4, and raises the
    weight of the term over the first 20 epochs; there is no such warm-up here [ours].
    """

    is_elementwise: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = True
    type: Literal["decoupled"] = "decoupled"
    beta: float = Field(default=8.0, ge=0)
    """β, weight of the classes other than y."""

    def __call__(self, student_logits_NV: Tensor, target: Target, temperature: float) -> Tensor:
        labels_N1 = _labels(target)[:, None]
        b_T_N2, q_T_NV = _split(target.logp_NV, labels_N1)
        b_S_N2, q_S_NV = _split(log_softmax_at(student_logits_NV, temperature), labels_N1)
        return kl(b_T_N2, b_S_N2) + weighted(self.beta, kl(q_T_NV, q_S_NV))


def _labels(target: Target) -> Tensor:
    top_N = target.logp_NV.argmax(-1)
    if target.labels_N is None:
        return top_N
    return torch.where(target.labels_N >= 0, target.labels_N, top_N)


def _split(logp_NV: Tensor, labels_N1: Tensor) -> tuple[Tensor, Tensor]:
    """log b [N, 2] and log q [N, V], which is −∞ at the label."""
    others_NV = logp_NV.scatter(-1, labels_N1, -torch.inf)
    rest_N1 = logsumexp(others_NV)
    b_N2 = torch.cat([logp_NV.gather(-1, labels_N1), rest_N1], dim=-1)
    # A model that is certain of y has no q: −∞ − −∞ is NaN.
    return b_N2, torch.where(rest_N1 > -torch.inf, others_NV - rest_N1, -torch.inf)
