"""Weights that do not look at the row: the uniform mean, and weights from the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import field_validator

from distill.aggregation.mixture import Mixture, Weights, only_queried
from distill.errors import ConfigError
from distill.records import TeacherAnswers

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
else:
    from distill.lazy_torch import torch


class UniformMean(Mixture):
    """w_k = 1/K."""

    type: Literal["mean"] = "mean"

    def weigh(
        self, answers: TeacherAnswers, features_BH: Tensor | None, module: nn.Module | None
    ) -> Weights:
        return Weights(only_queried(answers.queried_KB.float(), answers.queried_KB))


class FixedWeights(Mixture):
    """w_k from the configuration, normalised to sum to 1."""

    type: Literal["weights"] = "weights"
    weights: tuple[float, ...]
    """One non-negative weight for each teacher, in the order of ``teachers``."""

    @field_validator("weights")
    @classmethod
    def _usable(cls, weights: tuple[float, ...]) -> tuple[float, ...]:
        if not weights or min(weights) < 0 or sum(weights) == 0:
            raise ValueError(
                f"aggregation.weights must be non-negative with a positive sum, got {weights}"
            )
        return weights

    def check(self, teacher_names: list[str]) -> None:
        if len(self.weights) != len(teacher_names):
            raise ConfigError(
                f"aggregation.weights has {len(self.weights)} values for {len(teacher_names)} "
                f"teachers: give one weight for each of {', '.join(teacher_names)}"
            )

    def weigh(
        self, answers: TeacherAnswers, features_BH: Tensor | None, module: nn.Module | None
    ) -> Weights:
        weights_K = torch.tensor(self.weights, device=answers.logits_KBV.device)
        weights_KB = weights_K[:, None].expand(answers.queried_KB.shape)
        return Weights(only_queried(weights_KB, answers.queried_KB))
