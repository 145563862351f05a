"""Last hidden states; the teacher's head is sent once, and the logits are rebuilt.

Shape suffixes: P, N positions, X a position's payload, H hidden.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self

import numpy as np

from distill.records import Head
from distill.variant import Dtype
from distill.wires.base import WireFormat, array_fault, bits_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from distill.lazy_torch import torch


class HiddenWire(WireFormat):
    """The last hidden state of each position: exact, V/H times smaller than its logits."""

    takes: ClassVar[Literal["logits", "hidden"]] = "hidden"
    tasks: ClassVar[tuple[str, ...]] = ("language_model",)
    type: Literal["hidden"] = "hidden"
    dtype: Dtype | None = None
    """null: the data type of the teacher (``teachers.dtype``), which makes it exact."""

    @property
    def name(self) -> str:
        return f"hidden/{self.dtype}"

    def resolved(self, of_tokens: bool, serving_dtype: Dtype) -> Self:
        return self.model_copy(update={"dtype": self.dtype or serving_dtype})

    def fault(self, payload: np.ndarray, num_positions: int, num_columns: int) -> str | None:
        assert self.dtype is not None
        return array_fault(payload, self.dtype, (num_positions, None))

    def encode(self, payload_PX: Tensor, seeds_P: np.ndarray | None = None) -> Tensor:
        """[P, H] numbers; see bits_of."""
        assert self.dtype is not None
        return bits_of(payload_PX, self.dtype)

    def logits(self, payload_NX: Tensor, head: Head | None, columns: slice = slice(None)) -> Tensor:
        """The product is taken in the head's dtype, as the teacher itself takes it."""
        assert head is not None
        hidden_NH = payload_NX.view(torch.bfloat16) if self.dtype == "bfloat16" else payload_NX
        bias_V = None if head.bias_V is None else head.bias_V[columns]
        weight_VH = head.weight_VH[columns]
        return torch.nn.functional.linear(hidden_NH.to(weight_VH.dtype), weight_VH, bias_V).float()
