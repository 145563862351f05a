"""All logits, as they are.

Shape suffixes: P, N positions, V classes or vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

import numpy as np

from distill.records import Head
from distill.variant import Dtype
from distill.wires.base import WireFormat, array_fault, bits_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from distill.lazy_torch import torch


class DenseWire(WireFormat):
    """All logits: exact in float32, rounded in bfloat16."""

    type: Literal["dense"] = "dense"
    dtype: Dtype | None = None
    """null: float32 for classifiers, bfloat16 for language models."""

    @property
    def name(self) -> str:
        return f"dense/{self.dtype or 'float32'}"

    def resolved(self, of_tokens: bool, serving_dtype: Dtype) -> Self:
        default = "bfloat16" if of_tokens else "float32"
        return self.model_copy(update={"dtype": self.dtype or default})

    def fault(self, payload: np.ndarray, num_positions: int, num_columns: int) -> str | None:
        return array_fault(payload, self.dtype or "float32", (num_positions, num_columns))

    def encode(self, payload_PX: Tensor, seeds_P: np.ndarray | None = None) -> Tensor:
        """[P, V] numbers; see bits_of."""
        return bits_of(payload_PX, self.dtype or "float32")

    def logits(self, payload_NX: Tensor, head: Head | None, columns: slice = slice(None)) -> Tensor:
        kept_NX = payload_NX[:, columns]
        return kept_NX.view(torch.bfloat16).float() if self.dtype == "bfloat16" else kept_NX
