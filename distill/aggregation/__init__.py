"""Combining the outputs of several teachers into the one target of the student."""

from typing import Annotated

from pydantic import Field

from distill.aggregation.alone import OracleDomain, Single
from distill.aggregation.attention import Attention
from distill.aggregation.fixed import FixedWeights, UniformMean
from distill.aggregation.learned import LearnedRouter
from distill.aggregation.routed import Routed
from distill.aggregation.trained import TrainedWeights
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
    "TrainedWeights",
    "Uncertainty",
    "UniformMean",
]
