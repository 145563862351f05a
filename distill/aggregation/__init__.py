"""From what several teachers said to the one target that the student learns from."""

from typing import Annotated

from pydantic import Field

from distill.aggregation.alone import OracleDomain, Single
from distill.aggregation.attention import Attention
from distill.aggregation.fixed import FixedWeights, UniformMean
from distill.aggregation.learned import LearnedRouter
from distill.aggregation.routed import Routed
from distill.aggregation.uncertainty import Uncertainty

Aggregation = Annotated[
    UniformMean
    | FixedWeights
    | Routed
    | Single
    | OracleDomain
    | Uncertainty
    | Attention
    | LearnedRouter,
    Field(discriminator="type"),
]

__all__ = [
    "Aggregation",
    "Attention",
    "FixedWeights",
    "LearnedRouter",
    "OracleDomain",
    "Routed",
    "Single",
    "Uncertainty",
    "UniformMean",
]
