"""HPM-KD component 3: attention over teachers, trained with the student (arXiv 2512.09886)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from distill.aggregation.mixture import Mixture, Space, Weights
from distill.records import TeacherAnswers

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
else:
    from distill.lazy_torch import torch


class Attention(Mixture):
    """a(x) = softmax(MLP([enc(x); z_1..z_M])), p = Σ a_m p_m, L −= entropy_weight · H(a).

    enc(x) is the student's own pooled feature, detached [ours: the source leaves the encoder
    open]. H(a) is a mean over rows, so its sum over ranks is the mean over the global batch.
    """

    sees_logits: ClassVar[bool] = True
    type: Literal["attention"] = "attention"
    mix: Space = "probabilities"
    """What is averaged over the teachers; in the paper ``probabilities``."""
    hidden: int = Field(default=128, gt=0)
    """Width of the MLP."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Dropout of the MLP."""
    entropy_weight: float = Field(default=0.01, ge=0)
    """β: prevents the attention from collapsing onto one teacher [ours: 0.01]."""

    def build(self, num_teachers: int, num_classes: int, num_features: int) -> nn.Module:
        return torch.nn.Sequential(
            torch.nn.Linear(num_features + num_teachers * num_classes, self.hidden),
            torch.nn.ReLU(),
            torch.nn.Dropout(self.dropout),
            torch.nn.Linear(self.hidden, num_teachers),
        )

    def weigh(
        self, answers: TeacherAnswers, features_BH: Tensor | None, module: nn.Module | None
    ) -> Weights:
        assert features_BH is not None and module is not None
        num_rows = answers.logits_KBV.shape[1]
        logits_B_KV = answers.logits_KBV.transpose(0, 1).reshape(num_rows, -1)
        seen_BX = torch.cat([features_BH.detach().float(), logits_B_KV], dim=1)
        dtype = next(module.parameters()).dtype  # bf16 under DeepSpeed's bf16
        scores_BK = module(seen_BX.to(dtype)).float()
        log_weights_BK = scores_BK.masked_fill(~answers.asked_KB.T, -1e30).log_softmax(dim=1)
        weights_BK = log_weights_BK.exp()
        entropy_B = -(weights_BK * log_weights_BK).sum(1)
        return Weights(weights_BK.T, self.entropy_weight * entropy_B)
