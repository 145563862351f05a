"""Several divergences as one objective: their weighted sum.

Shape suffixes: N any block of valid rows, V classes or vocabulary. ``logp`` is log-space.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ConfigDict, RootModel, model_validator

from distill.objectives.base import Divergence
from distill.objectives.union import Single
from distill.records import Target

if TYPE_CHECKING:
    from torch import Tensor


class WeightedSum(RootModel[tuple[Single, ...]]):
    """Σ_i weight_i · c_i(T) · D_i: of a list of objectives, each with its own c(T).

    It has a property only if all of its members have it; it couples rows, or needs labels, if one
    of them does.
    """

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="after")
    def _can_be_added(self) -> WeightedSum:
        if not self.root:
            raise ValueError("objective is an empty list: add an entry, as in - {type: forward_kl}")
        if len(self.root) > 1 and any(member.crosses_tokenizers for member in self.root):
            raise ValueError(
                "objective: uld compares different vocabularies, and the other objectives of the "
                "list need one vocabulary: give uld alone, or remove it from the list"
            )
        return self

    @property
    def type(self) -> str:
        """For tables and messages: ``forward_kl + 0.1 cosine``."""
        return " + ".join(
            member.type if member.weight == 1 else f"{member.weight:g} {member.type}"
            for member in self.root
        )

    @property
    def members(self) -> dict[str, Divergence]:
        return {f"objective.{index}": member for index, member in enumerate(self.root)}

    @property
    def is_elementwise(self) -> bool:
        return all(member.is_elementwise for member in self.root)

    @property
    def mixes(self) -> bool:
        return all(member.mixes for member in self.root)

    @property
    def is_zero_at_teacher(self) -> bool:
        return all(member.is_zero_at_teacher for member in self.root)

    @property
    def crosses_tokenizers(self) -> bool:
        return all(member.crosses_tokenizers for member in self.root)

    @property
    def needs_labels(self) -> bool:
        return any(member.needs_labels for member in self.root)

    @property
    def couples_rows(self) -> bool:
        return any(member.couples_rows for member in self.root)

    @property
    def row_floats(self) -> int:
        return max(member.row_floats for member in self.root)

    def at_tokens(self) -> WeightedSum | Single:
        """Of one member that member, which a truncated wire may serve."""
        if len(self.root) == 1:
            return self.root[0].at_tokens()
        return WeightedSum.model_construct(tuple(member.at_tokens() for member in self.root))

    def coefficient(self, temperature: float) -> float:
        """1: the members' own coefficients are within the sum."""
        return 1.0

    def total_coefficient(self, temperature: float) -> float:
        """Σ_i weight_i · c_i(T)."""
        return sum(member.coefficient(temperature) for member in self.root)

    def terms_at(self, logp_T_NV: Tensor, logp_S_NV: Tensor, temperature: float) -> Tensor:
        first, *others = (
            member.coefficient(temperature) * member.terms(logp_T_NV, logp_S_NV)
            for member in self.root
        )
        return sum(others, first)

    def __call__(self, student_logits_NV: Tensor, target: Target, temperature: float) -> Tensor:
        first, *others = (
            member.coefficient(temperature) * member(student_logits_NV, target, temperature)
            for member in self.root
        )
        return sum(others, first)
