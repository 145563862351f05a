"""A router of language-model teachers that is trained with the student, on the text alone.

Shape suffixes: K teachers, N positions, S sequences, H the student's hidden states, B rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from distill.aggregation.mixture import Mixture, Space, Weights, only_asked
from distill.errors import ConfigError
from distill.records import TeacherAnswers

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
else:
    from distill.lazy_torch import torch


class LearnedRouter(Mixture):
    """w = softmax(W · norm(h) + b), trained on −log Σ_k w_k p_k(x_{t+1}), at temperature 1.

    The likelihood of a mixture of experts (Jacobs et al. 1991, "Adaptive mixtures of local
    experts"), whose experts are fixed: a teacher that gives the text a higher probability gets a
    higher weight. h: the student's own last hidden states, which this loss does not train; as the
    teachers' weights in the distillation do not train the router [ours: nobody ships a router of
    language-model teachers]. norm: each vector to mean 0 and variance 1, so that a learning rate
    means the same in all families. W and b start at 0, which is the uniform mean.
    """

    type: Literal["learned"] = "learned"
    per: Literal["sample", "token"] = "token"
    """``token``: weights of each position, from what is before it. ``sample``: of each packed
    sequence, from the mean of h over its positions; these have read the text that they weigh."""
    mix: Space = "probabilities"
    """Space that the teachers are mixed in for the student. The router's loss is the likelihood of
    a mixture of ``probabilities`` in any case."""

    def check(self, teacher_names: list[str]) -> None:
        if len(teacher_names) < 2:
            raise ConfigError(
                "aggregation.type learned chooses between teachers, and there is only "
                f"{teacher_names[0]}: use aggregation.type mean, or add another teacher"
            )

    def build(self, num_teachers: int, num_classes: int, num_features: int) -> nn.Module:
        score = torch.nn.Linear(num_features, num_teachers)
        torch.nn.init.zeros_(score.weight)
        torch.nn.init.zeros_(score.bias)
        norm = torch.nn.LayerNorm(num_features, elementwise_affine=False)
        return torch.nn.Sequential(norm, score)

    def log_weights(self, module: nn.Module, hidden_NH: Tensor, sequences_N: Tensor) -> Tensor:
        """float32 [K, N]. ``sequences_N``: which of the packed sequences a position is of."""
        dtype = next(module.parameters()).dtype  # bf16 under DeepSpeed's bf16
        seen_XH = hidden_NH.detach().float()
        place_N = None
        if self.per == "sample":
            found_S, place_N = sequences_N.unique(return_inverse=True)
            sums_SH = seen_XH.new_zeros(len(found_S), seen_XH.shape[1])
            sums_SH.index_add_(0, place_N, seen_XH)
            seen_XH = sums_SH / place_N.bincount(minlength=len(found_S))[:, None]
        log_weights_KX = module(seen_XH.to(dtype)).float().log_softmax(dim=1).T
        return log_weights_KX if place_N is None else log_weights_KX[:, place_N]

    def weigh(
        self, answers: TeacherAnswers, features_BH: Tensor | None, module: nn.Module | None
    ) -> Weights:
        """Of rows that each are a sample, and a position."""
        assert features_BH is not None and module is not None
        each_B = torch.arange(len(features_BH), device=features_BH.device)
        weights_KB = self.log_weights(module, features_BH, each_B).exp()
        return Weights(only_asked(weights_KB, answers.asked_KB))
