"""MUKI: trust the teacher that is certain of its output (Li et al. 2022, "Mutual knowledge
integration"; the entropy estimate, not Monte-Carlo dropout)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from distill.aggregation.mixture import Mixture, Space, Weights, only_queried
from distill.records import TeacherAnswers

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
else:
    from distill.lazy_torch import torch


class Uncertainty(Mixture):
    """u_k = 1 − H(p_k)/log V; w = softmax(u / τ) over the teachers, or only the most certain
    one."""

    sees_logits: ClassVar[bool] = True
    type: Literal["uncertainty"] = "uncertainty"
    mix: Space = "probabilities"
    """What is averaged over the teachers [ours: the source averages over a union of labels]."""
    tau: float = Field(default=0.2, gt=0)
    """Temperature of the softmax over teachers."""
    is_hard: bool = False
    """Use only the most certain teacher."""

    def weigh(
        self, answers: TeacherAnswers, features_BH: Tensor | None, module: nn.Module | None
    ) -> Weights:
        logp_KBV = torch.nn.functional.log_softmax(answers.logits_KBV, dim=-1)
        p_KBV = logp_KBV.exp()
        # 0·log 0 = 0, of classes that a teacher rules out.
        entropy_KB = -torch.where(p_KBV > 0, p_KBV * logp_KBV, 0.0).sum(-1)
        sureness_KB = 1 - entropy_KB / math.log(logp_KBV.shape[-1])
        sureness_KB = sureness_KB.masked_fill(~answers.queried_KB, -torch.inf)
        if self.is_hard:
            num_teachers = sureness_KB.shape[0]
            weights_KB = torch.nn.functional.one_hot(sureness_KB.argmax(0), num_teachers).T.float()
        else:
            weights_KB = (sureness_KB / self.tau).softmax(0)
        return Weights(only_queried(weights_KB, answers.queried_KB))
