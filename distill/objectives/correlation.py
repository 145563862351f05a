"""Correlation of the student's outputs with the target's, in place of a divergence.

Pearson's ρ does not depend on the scale and the offset of either side. It is 1 − ρ = ½‖u − v‖² of
the centred unit vectors u and v. Where the target is constant there is nothing to correlate with:
1 − ρ counts as 0 [ours]. Where only the student is constant it is 1, with gradient 0 [ours].

Logits z_T are T · log p_T, which is right up to a constant for each row, also of an ensemble of
teachers. What is compared is therefore centred over the classes.

A student's logit of −∞ counts as ``LEFT_OUT`` where logits are compared.

Shape suffixes: N any block of valid rows, V classes or vocabulary, K the most probable of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from distill.objectives.base import Divergence
from distill.objectives.log_softmax import LEFT_OUT, finite, log_softmax_at
from distill.records import Target

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from distill.lazy_torch import torch


def distance(a: Tensor, b: Tensor, dim: int = -1, counts: Tensor | None = None) -> Tensor:
    """1 − ρ(a, b) over ``dim``, a the target; ``counts`` (bool): the entries that are compared."""
    u, is_flat_T = _unit(a, dim, counts)
    v, is_flat_S = _unit(b, dim, counts)
    apart = 0.5 * (u - v).square().sum(dim)  # exactly 0 of equal vectors
    return torch.where(is_flat_T, 0.0, torch.where(is_flat_S, 1.0, apart))


def _unit(x: Tensor, dim: int, counts: Tensor | None) -> tuple[Tensor, Tensor]:
    """The centred vector at length 1, and whether it is constant: then 0."""
    if counts is None:
        mean = x.mean(dim, keepdim=True)
        centred = x - mean
    else:
        x = torch.where(counts, x, 0.0)
        mean = x.sum(dim, keepdim=True) / counts.sum(dim, keepdim=True)
        centred = torch.where(counts, x - mean, 0.0)
    square = centred.square().sum(dim, keepdim=True)
    # Equal numbers differ from their mean by rounding.
    rounding = 32 * torch.finfo(x.dtype).eps
    is_flat = square <= rounding**2 * x.detach().square().sum(dim, keepdim=True)
    length = torch.where(is_flat, 1.0, square).sqrt()  # the gradient of sqrt at 0 is infinite
    return torch.where(is_flat, 0.0, centred / length), is_flat.squeeze(dim)


def target_logits(target: Target, temperature: float) -> tuple[Tensor, Tensor]:
    """[N, V] logits of the target, each row up to a constant, and which of them are compared:
    those of classes that the target does not rule out (see ``LEFT_OUT``)."""
    z_T_NV = temperature * target.logp_NV
    return z_T_NV, z_T_NV > LEFT_OUT / 2


class _Unscaled(Divergence):
    """c(T) = 1: correlation divides the temperature's effect on the gradient out."""

    is_elementwise: ClassVar[bool] = False

    def scale(self, temperature: float) -> float:
        return 1.0


class Cosine(_Unscaled):
    """1 − cos(z_T, z_S) of the logits, each row centred [ours]: the temperature has no effect.

    The target is known as log-probabilities, logits up to a constant for each row. Without
    gradient for two classes, whose centred logits have one direction.
    """

    type: Literal["cosine"] = "cosine"

    @property
    def min_classes(self) -> int:
        return 3

    def __call__(self, student_logits_NV: Tensor, target: Target, temperature: float) -> Tensor:
        z_T_NV, counts_NV = target_logits(target, temperature)
        return distance(z_T_NV, finite(student_logits_NV), counts=counts_NV)


class Dist(_Unscaled):
    """Mean over rows of 1 − ρ(p_T, p_S) + mean over classes of 1 − ρ over the batch's rows.

    ρ is Pearson's. The second term compares rows, so it needs the whole batch at once; for
    language models it is left out. Returned per row: 1 − ρ of the row, plus the second term.
    DIST, Huang et al. 2022, arXiv 2205.10536.
    """

    type: Literal["dist"] = "dist"
    row_weight: float = Field(default=1.0, ge=0)
    """Weight of the term over the classes of each row."""
    class_weight: float = Field(default=1.0, ge=0)
    """Weight of the term over the rows of each class; 0: no row depends on another."""

    @model_validator(mode="after")
    def _has_a_term(self) -> Dist:
        if self.row_weight == self.class_weight == 0:
            raise ValueError("row_weight and class_weight are both 0: raise one of them")
        return self

    @property
    def couples_rows(self) -> bool:
        return self.class_weight > 0

    @property
    def min_classes(self) -> int:
        return 2 if self.class_weight > 0 else 3

    def at_tokens(self) -> Self:
        """Without the term that compares rows, unless it is the only one: then it is refused."""
        if self.row_weight == 0:
            return self
        return self.model_copy(update={"class_weight": 0.0})

    def __call__(self, student_logits_NV: Tensor, target: Target, temperature: float) -> Tensor:
        p_T_NV = target.logp_NV.exp()
        p_S_NV = log_softmax_at(student_logits_NV, temperature).exp()
        value_N = self.row_weight * distance(p_T_NV, p_S_NV)
        if self.class_weight == 0 or len(value_N) == 0:
            return value_N
        return value_N + self.class_weight * distance(p_T_NV, p_S_NV, dim=0).mean()


class _Ranked(_Unscaled):
    """Pearson's and Spearman's correlation of the target's most probable classes."""

    top: int = Field(default=64, ge=3)
    """Number of classes or tokens that are compared, the target's most probable ones; all, where
    there are fewer."""
    softness: float = Field(default=0.1, gt=0)
    """Divisor of the logits' differences in the soft ranks r_v = ½ + Σ_u σ((z_v − z_u) / softness);
    near 0 the ranks are exact, and without gradient."""

    @property
    def min_classes(self) -> int:
        return 3

    @property
    def row_floats(self) -> int:
        return self.top**2

    def distances(
        self, student_logits_NV: Tensor, target: Target, temperature: float
    ) -> tuple[Tensor, Tensor]:
        """[N] 1 − ρ(p_T, p_S), and 1 − ρ of the soft ranks of the logits."""
        logp_T_NK, top_NK = target.logp_NV.topk(min(self.top, target.logp_NV.shape[-1]), dim=-1)
        z_T_NK = (temperature * logp_T_NK).clamp(min=LEFT_OUT)
        z_S_NK = finite(student_logits_NV.gather(-1, top_NK))
        # Of p the normaliser is a factor of the row, which ρ does not depend on.
        p_S_NK = log_softmax_at(student_logits_NV, temperature).gather(-1, top_NK).exp()
        values_N = distance(logp_T_NK.exp(), p_S_NK)
        return values_N, distance(self._ranks(z_T_NK), self._ranks(z_S_NK))

    def _ranks(self, z_NK: Tensor) -> Tensor:
        """Soft ranks, 1 to K, rising with z."""
        return 0.5 + ((z_NK[:, :, None] - z_NK[:, None, :]) / self.softness).sigmoid().sum(-1)


class CorrelationMatching(_Ranked):
    """w·(1 − ρ(p_T, p_S)) + (1 − w)·(1 − ρ of the soft ranks): values and their order.

    Over the ``top`` most probable classes or tokens of the target [ours]. CMKD, arXiv 2410.06561,
    which weighs by the difficulty of a row; here w is one number [ours].
    """

    type: Literal["cmkd"] = "cmkd"
    value_weight: float = Field(default=0.5, ge=0, le=1)
    """w, weight of the values; 1 − w is that of the ranks."""

    def __call__(self, student_logits_NV: Tensor, target: Target, temperature: float) -> Tensor:
        values_N, ranks_N = self.distances(student_logits_NV, target, temperature)
        return self.value_weight * values_N + (1 - self.value_weight) * ranks_N


class RobustCorrelation(_Ranked):
    """(1 − ρ(p_T, p_S)) + (1 − ρ of the soft ranks), over the ``top`` most probable classes [ours].

    R2KD, arXiv 2311.13934, which also prunes the teacher; here it is used as it is.
    """

    type: Literal["r2kd"] = "r2kd"
    value_weight: float = Field(default=1.0, ge=0)
    """Weight of the values."""
    rank_weight: float = Field(default=1.0, ge=0)
    """Weight of the ranks."""

    @model_validator(mode="after")
    def _has_a_term(self) -> RobustCorrelation:
        if self.value_weight == self.rank_weight == 0:
            raise ValueError("value_weight and rank_weight are both 0: raise one of them")
        return self

    def __call__(self, student_logits_NV: Tensor, target: Target, temperature: float) -> Tensor:
        values_N, ranks_N = self.distances(student_logits_NV, target, temperature)
        return self.value_weight * values_N + self.rank_weight * ranks_N
