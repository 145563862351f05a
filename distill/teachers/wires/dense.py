"""All logits, as they are.

Shape suffixes: P, N positions, V classes or vocabulary.
"""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor

from distill.records import Head
from distill.teachers.wires.base import WireFormat, array_fault
from distill.variant import Dtype


class DenseWire(WireFormat):
    """All logits: exact in float32, within half a unit of the last place in bfloat16."""

    type: Literal["dense"] = "dense"
    dtype: Dtype | None = None
    """null: float32 for classifiers, bfloat16 for language models."""

    @property
    def name(self) -> str:
        return f"dense/{self.dtype or 'float32'}"

    def resolved(self, is_language_model: bool, serving_dtype: Dtype) -> Self:
        default = "bfloat16" if is_language_model else "float32"
        return self.model_copy(update={"dtype": self.dtype or default})

    def fault(self, payload: np.ndarray, num_positions: int, num_columns: int) -> str | None:
        return array_fault(payload, self.dtype or "float32", (num_positions, num_columns))

    def encode(self, said_PX: Tensor, seeds_P: np.ndarray | None = None) -> np.ndarray:
        """float32 [P, V], or bfloat16 (round to nearest even) in the bits of uint16."""
        logits_PV = said_PX.detach().cpu()
        if self.dtype == "bfloat16":
            # numpy has no bfloat16: the bits travel as integers.
            return logits_PV.to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
        return logits_PV.to(torch.float32).numpy()

    def logits(self, payload_NX: Tensor, head: Head | None, columns: slice = slice(None)) -> Tensor:
        kept_NX = payload_NX[:, columns]
        return kept_NX.view(torch.bfloat16).float() if self.dtype == "bfloat16" else kept_NX
