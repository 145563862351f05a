"""HPM-KD component 3: attention over teachers, trained with the student (arXiv 2512.09886)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from distill.aggregation.trained import TrainedWeights
from distill.aggregation.uncertainty import Uncertainty
from distill.variant import Only

if TYPE_CHECKING:
    from torch import nn


class Attention(TrainedWeights):
    """a(x) = softmax_m(MLP([enc(x); t_m])), p = Σ a_m p_m, with a learned embedding t_m for each
    teacher.

    The attention minimises −log Σ a_m p_m(y) − α · c(T) · β · H(a): a mean over the labelled rows,
    at temperature 1, and a mean over all rows. The distillation loss takes a as constants, and the
    attention's loss does not train the student [ours: the source trains both by the distillation
    loss, which moves the weights to the teacher nearest to the student]. α · c(T) is the factor of
    the distillation loss, so that β compares H(a) with D, as in the source; of a list of objectives
    c(T) is Σ w_i · c_i(T). enc(x): mean of the student's last hidden states over a row's tokens,
    normalised [ours].
    """

    version: ClassVar[int] = 2
    type: Literal["attention"] = "attention"
    per: Annotated[
        Literal["sample", "token"] | None, Only("language_model", ("token",), "use sample")
    ] = None
    """``sample``: weights for each row of a classifier, or each packed sequence of a language model
    (from the mean over its positions, which depends on the text itself). ``token``: weights for
    each position, from the text before it; applies only to language models. null: ``sample`` for
    classifiers, ``token`` for language models."""
    hidden: int = Field(default=128, gt=0)
    """Width of the MLP."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Dropout of the MLP."""
    entropy_weight: float = Field(default=0.01, ge=0)
    """β: weight of the entropy of the weights. Larger values keep them closer to the uniform
    mean. It is multiplied by α · c(T), as the distillation loss is: at high temperatures with
    c(T) = T² a smaller value may be needed."""

    @property
    def pools(self) -> bool:
        return self.per == "sample"

    @property
    def beta(self) -> float:
        return self.entropy_weight

    def build(self, num_teachers: int, num_classes: int, num_features: int) -> nn.Module:
        from distill.aggregation.attention_network import TeacherScores  # imports torch

        return TeacherScores(num_teachers, num_features, self.hidden, self.dropout)

    def without_labels(self) -> Uncertainty:
        return Uncertainty(mix=self.mix)
