"""Last hidden states; the teacher's head is sent once, and the logits are rebuilt."""

from __future__ import annotations

from typing import ClassVar, Literal

from distill.teachers.wires.base import WireFormat
from distill.variant import Dtype


class HiddenWire(WireFormat):
    """The last hidden state of each position: exact, V/H times smaller than its logits."""

    takes: ClassVar[Literal["logits", "hidden"]] = "hidden"
    type: Literal["hidden"] = "hidden"
    dtype: Dtype | None = None
    """null: the teacher's own arithmetic (``teachers.dtype``), which makes it exact."""

    @property
    def name(self) -> str:
        return f"hidden/{self.dtype}"
