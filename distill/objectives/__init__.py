"""Divergences between the teachers' target and the student, and the loss around them.

base.py is the contract; union.py lists the members.
"""

from typing import Annotated, Any

from pydantic import Discriminator, Tag

from distill.objectives.adaptive import AdaptiveKL
from distill.objectives.comparative import Comparative
from distill.objectives.correlation import CorrelationMatching, Cosine, Dist, RobustCorrelation
from distill.objectives.decoupled import Decoupled
from distill.objectives.divergence import ForwardKL, GeneralisedJSD, ReverseKL, TotalVariation
from distill.objectives.skewed import SkewedForwardKL, SkewedReverseKL
from distill.objectives.uld import UniversalLogits
from distill.objectives.union import Single
from distill.objectives.weighted import WeightedSum


def _form(value: Any) -> str:
    return "list" if isinstance(value, list | tuple | WeightedSum) else "section"


# By form first: an error of a list's entry names that entry alone.
Objective = Annotated[
    Annotated[Single, Tag("section")] | Annotated[WeightedSum, Tag("list")], Discriminator(_form)
]

__all__ = [
    "AdaptiveKL",
    "Comparative",
    "CorrelationMatching",
    "Cosine",
    "Decoupled",
    "Dist",
    "ForwardKL",
    "GeneralisedJSD",
    "Objective",
    "ReverseKL",
    "RobustCorrelation",
    "Single",
    "SkewedForwardKL",
    "SkewedReverseKL",
    "TotalVariation",
    "UniversalLogits",
    "WeightedSum",
]
