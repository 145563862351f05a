"""Softmax at a temperature, and the logit of what it leaves out."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from distill.lazy_torch import torch


LEFT_OUT = -1e4
"""The logit of a token that is not compared: without probability at every temperature in use, and
finite in every number format of a wire, so that no divergence is infinite or NaN."""


def log_softmax_at(logits_NV: Tensor, temperature: float) -> Tensor:
    """log softmax(z / T) over the last dimension; at T = 1 no scaled copy of the logits is made."""
    scaled_NV = logits_NV if temperature == 1 else logits_NV / temperature
    return torch.nn.functional.log_softmax(scaled_NV, dim=-1)
