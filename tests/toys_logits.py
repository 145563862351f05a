"""A classifier whose logits and hidden states are given, and batches of its rows.

Shape suffixes: B rows, T tokens, V classes, H hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distill.records import UNLABELLED, Batch


class GivenLogits(nn.Module):
    """A student whose logits are its parameters, for one batch of rows."""

    def __init__(self, logits_BV: Tensor, hidden_BTH: Tensor | None = None) -> None:
        super().__init__()
        self.logits_BV = nn.Parameter(logits_BV.clone())
        self.hidden_BTH = hidden_BTH
        width = 1 if hidden_BTH is None else hidden_BTH.shape[-1]
        self.config = SimpleNamespace(hidden_size=width)

    def forward(self, output_hidden_states: bool = False, **inputs: object) -> Any:
        # The last of several: others are not to be read.
        states = (torch.full((1,), torch.nan), self.hidden_BTH) if output_hidden_states else None
        return SimpleNamespace(logits=self.logits_BV, hidden_states=states)


def batch_of(labels: Sequence[int], **changes: Any) -> Batch:
    """Rows of one feature with these labels; all are valid and the whole global batch."""
    num = len(labels)
    given = {
        "rows_B": np.arange(num),
        "labels_B": torch.tensor(labels),
        "domains_B": torch.full((num,), -1),
        "valid_B": torch.ones(num, dtype=torch.bool),
        "num_valid": num,
        "num_labelled": sum(label != UNLABELLED for label in labels),
        "features_BD": torch.zeros(num, 1),
    }
    return Batch(**(given | changes))
