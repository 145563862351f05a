"""MoEKD: a router selects the experts for each row.

arXiv 2603.13213; no method section was available, so steps 3–4 are our reading.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from distill.aggregation.mixture import Mixture, Weights, only_queried
from distill.errors import ConfigError
from distill.records import RoutingInputs, TeacherAnswers
from distill.variant import ModelPath

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
else:
    from distill.lazy_torch import torch


class Routed(Mixture):
    """S = top-k of softmax(router(x)); weights are the router's probabilities renormalised on S.

    Only the experts in S are queried, so a row needs k teacher forwards instead of K.
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification",)
    type: Literal["routed"] = "routed"
    k: int | Literal["all"] = 2
    """Number of experts for each row."""
    router: ModelPath | None = Field(default=None)
    """A trained router, a classifier over the teachers: its folder, or the pickle of an object with
    ``predict_proba``. Its labels (``classes_``) are their names, in any order; LABEL_i, or i, is
    the i-th of ``teachers``. null: the router from ``experts.router``."""
    allow_pickle: bool = False
    """Load a pickle as ``router``. A pickle can run code."""

    def needs_router(self) -> bool:
        return True

    def num_queried(self, num_teachers: int) -> int:
        return num_teachers if self.k == "all" else self.k

    def check(self, teacher_names: list[str]) -> None:
        if self.k != "all" and not 1 <= self.k <= len(teacher_names):
            raise ConfigError(
                f"aggregation.k must lie between 1 and the number of teachers "
                f"({len(teacher_names)}), or be 'all', got {self.k}"
            )

    def querying_all(self) -> Mixture:
        return self.model_copy(update={"k": "all"})

    def choose(self, inputs: RoutingInputs) -> Tensor:
        """The k most probable, bool [K, B]. Ties go to the teacher named first."""
        router_logits_BK = inputs.router_logits_BK
        assert router_logits_BK is not None
        k = self.num_queried(router_logits_BK.shape[1])
        order_BK = router_logits_BK.argsort(dim=1, descending=True, stable=True)
        queried_BK = torch.zeros_like(router_logits_BK, dtype=torch.bool)
        return queried_BK.scatter(1, order_BK[:, :k], value=True).T.contiguous()

    def weigh(
        self, answers: TeacherAnswers, features_BH: Tensor | None, module: nn.Module | None
    ) -> Weights:
        assert answers.router_logits_BK is not None
        probs_KB = answers.router_logits_BK.softmax(dim=1).T
        return Weights(only_queried(probs_KB, answers.queried_KB))
