"""What every objective is: a divergence D with its temperature factor c(T), by default T².

Shape suffixes: N any block of valid rows, V classes or vocabulary. ``logp`` is log-space.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import Field

from distill.objectives.log_softmax import log_softmax_at
from distill.records import Target
from distill.variant import Variant

if TYPE_CHECKING:
    from torch import Tensor


class Divergence(Variant):
    """A divergence of the KL family: scaled by T² (Hinton et al. 2015, arXiv 1503.02531)."""

    is_elementwise: ClassVar[bool] = True
    """Whether it is a sum over V of ``terms``: the vocabulary may be split into parts."""
    mixes: ClassVar[bool] = True
    """Whether several teachers are combined into one target first. Else D = Σ w_k D(p_k, p_S)."""
    is_zero_at_teacher: ClassVar[bool] = True
    """Whether D = 0 where the student's logits are the target's."""
    needs_labels: ClassVar[bool] = False
    """Whether it reads ``Target.labels_N``."""
    crosses_tokenizers: ClassVar[bool] = False
    """Whether teacher and student may have different vocabularies."""
    weight: float = Field(default=1.0, gt=0, exclude_if=lambda weight: weight == 1)
    """Factor of c(T) · D in the loss: the weight of this entry in a list of objectives."""

    @property
    def couples_rows(self) -> bool:
        """Whether D of a row depends on other rows: all rows of the batch must be given at once."""
        return False

    @property
    def min_classes(self) -> int:
        """With fewer classes the gradient is 0."""
        return 2

    @property
    def row_floats(self) -> int:
        """Floats of the largest temporary of one row, if it may be larger than [V]."""
        return 0

    @property
    def members(self) -> dict[str, Divergence]:
        """The divergences that are added up, by their key of the configuration."""
        return {"objective": self}

    def at_tokens(self) -> Self:
        """This divergence at the positions of a language model, where it differs by the task."""
        return self

    def scale(self, temperature: float) -> float:
        """c(T)."""
        return temperature**2

    def coefficient(self, temperature: float) -> float:
        """c(T) · weight: the factor of D in the loss."""
        return self.scale(temperature) * self.weight

    def total_coefficient(self, temperature: float) -> float:
        """The size of the distillation loss where D is 1; of a sum, where each member's is."""
        return self.coefficient(temperature)

    def terms(self, logp_T_NV: Tensor, logp_S_NV: Tensor) -> Tensor:
        """[N, V]: the contribution of each class, from its two log-probabilities alone."""
        raise NotImplementedError

    def terms_at(self, logp_T_NV: Tensor, logp_S_NV: Tensor, temperature: float) -> Tensor:
        """[N, V]: what a part of the vocabulary adds to D, where the objective is elementwise."""
        return self.terms(logp_T_NV, logp_S_NV)

    def __call__(self, student_logits_NV: Tensor, target: Target, temperature: float) -> Tensor:
        logp_S_NV = log_softmax_at(student_logits_NV, temperature)
        return self.terms(target.logp_NV, logp_S_NV).sum(-1)
