"""A router of language-model teachers that is trained with the student, on the text alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from distill.aggregation.trained import TrainedWeights
from distill.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import nn
else:
    from distill.lazy_torch import torch


class LearnedRouter(TrainedWeights):
    """w = softmax(W · norm(h) + b), trained on −log Σ_k w_k p_k(x_{t+1}), at temperature 1.

    The likelihood of a mixture of experts (Jacobs et al. 1991, "Adaptive mixtures of local
    experts") whose experts are fixed: a teacher that gives the text a higher probability gets a
    higher weight. h: the last hidden states of the student, which this loss does not train; the
    distillation loss does not train the router [ours: there is no published router for
    language-model teachers]. norm: each vector to mean 0 and variance 1, so that one learning rate
    suits all model families. W and b start at 0, which is the uniform mean.
    """

    tasks: ClassVar[tuple[str, ...]] = ("language_model",)
    type: Literal["learned"] = "learned"
    per: Literal["sample", "token"] = "token"
    """``token``: weights for each position, from the text before it. ``sample``: weights for each
    packed sequence, from the mean of h over its positions, which depends on the text itself."""

    @property
    def pools(self) -> bool:
        return self.per == "sample"

    def check(self, teacher_names: list[str]) -> None:
        if len(teacher_names) < 2:
            raise ConfigError(
                "aggregation.type learned needs at least two teachers, and there is only "
                f"{teacher_names[0]}: use aggregation.type mean, or add another teacher"
            )

    def build(self, num_teachers: int, num_classes: int, num_features: int) -> nn.Module:
        score = torch.nn.Linear(num_features, num_teachers)
        torch.nn.init.zeros_(score.weight)
        torch.nn.init.zeros_(score.bias)
        norm = torch.nn.LayerNorm(num_features, elementwise_affine=False)
        return torch.nn.Sequential(norm, score)
