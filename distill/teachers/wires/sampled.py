"""A few random tokens of each position, unbiased for the forward KL (arXiv 2503.16870)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from distill.teachers.wires.base import WireFormat


class SampledWire(WireFormat):
    """n ids drawn from q ∝ p^exponent, each weighing p / (n·q)."""

    is_exact: ClassVar[bool] = False
    type: Literal["sampled"] = "sampled"
    num_samples: int = Field(default=12, ge=1)
    exponent: float = Field(default=1.0, gt=0)
    """t of q ∝ p^t."""
    temperature: float = Field(default=1.0, gt=0)
    """Of p; the only one that the answers can be used at."""
    seed: int = Field(default=0, ge=0)

    @property
    def name(self) -> str:
        return f"sampled/{self.num_samples}/{self.exponent:g}/{self.temperature:g}/{self.seed}"
