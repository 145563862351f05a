"""One teacher a row: what a mixture is compared with. Nobody else is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from distill.aggregation.fixed import UniformMean
from distill.aggregation.mixture import Mixture, Weights, only_queried
from distill.errors import ConfigError
from distill.records import RoutingInputs, TeacherAnswers

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
else:
    from distill.lazy_torch import torch


class _Alone(Mixture):
    """w_k = 1 for the one teacher that is chosen; ``mix`` makes no difference."""

    def num_queried(self, num_teachers: int) -> int:
        return 1

    def querying_all(self) -> Mixture:
        return UniformMean()

    def weigh(
        self, answers: TeacherAnswers, features_BH: Tensor | None, module: nn.Module | None
    ) -> Weights:
        return Weights(only_queried(answers.queried_KB.float(), answers.queried_KB))


class Single(_Alone):
    """The same teacher for every row."""

    type: Literal["single"] = "single"
    teacher: str
    """Name of the teacher, or of the expert (its domain, or ``cluster-0`` …)."""

    def check(self, teacher_names: list[str]) -> None:
        if self.teacher not in teacher_names:
            raise ConfigError(
                f"aggregation.teacher {self.teacher!r} is not a teacher: use one of "
                f"{', '.join(teacher_names)}"
            )

    def choose(self, inputs: RoutingInputs) -> Tensor:
        queried_KB = torch.zeros(len(inputs.names), len(inputs.domain_teacher_B), dtype=torch.bool)
        queried_KB[inputs.names.index(self.teacher)] = True
        return queried_KB


class OracleDomain(_Alone):
    """The teacher with the name of the row's domain: a router that always selects the right
    domain."""

    type: Literal["oracle"] = "oracle"

    def choose(self, inputs: RoutingInputs) -> Tensor:
        assert (inputs.domain_teacher_B >= 0).all(), "check refuses rows without such a teacher"
        teachers_K1 = torch.arange(len(inputs.names))[:, None]
        return teachers_K1 == inputs.domain_teacher_B[None]
