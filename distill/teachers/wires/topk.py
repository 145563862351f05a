"""The k largest logits, and what is left of the mass at each temperature of a grid."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from distill.teachers.wires.base import WireFormat


class TopKWire(WireFormat):
    """The forward KL over k + 1 outcomes, the last of which is the tail."""

    is_exact: ClassVar[bool] = False
    type: Literal["topk"] = "topk"
    k: int = Field(default=64, ge=1)
    """Logits kept of each position."""
    temperatures: tuple[float, ...] = (1.0, 2.0, 4.0)
    """The only temperatures that the answers can be used at."""

    @property
    def name(self) -> str:
        return f"topk/{self.k}/{','.join(f'{t:g}' for t in self.temperatures)}"
