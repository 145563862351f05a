"""Divergences between the teachers' target and the student, and the loss around them."""

from typing import Annotated

from pydantic import Field

from distill.objectives.divergence import ForwardKL, GeneralisedJSD, ReverseKL, TotalVariation
from distill.objectives.uld import UniversalLogits

Objective = Annotated[
    ForwardKL | ReverseKL | GeneralisedJSD | TotalVariation | UniversalLogits,
    Field(discriminator="type"),
]

__all__ = [
    "ForwardKL",
    "GeneralisedJSD",
    "Objective",
    "ReverseKL",
    "TotalVariation",
    "UniversalLogits",
]
