"""All objectives: what ``objective`` of a configuration may be, alone or in a list."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from distill.objectives.adaptive import AdaptiveKL
from distill.objectives.comparative import Comparative
from distill.objectives.correlation import CorrelationMatching, Cosine, Dist, RobustCorrelation
from distill.objectives.decoupled import Decoupled
from distill.objectives.divergence import ForwardKL, GeneralisedJSD, ReverseKL, TotalVariation
from distill.objectives.skewed import SkewedForwardKL, SkewedReverseKL
from distill.objectives.uld import UniversalLogits

Single = Annotated[
    ForwardKL
    | ReverseKL
    | GeneralisedJSD
    | SkewedForwardKL
    | SkewedReverseKL
    | AdaptiveKL
    | TotalVariation
    | Decoupled
    | Cosine
    | Dist
    | CorrelationMatching
    | RobustCorrelation
    | Comparative
    | UniversalLogits,
    Field(discriminator="type"),
]
