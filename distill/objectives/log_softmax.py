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


def finite(logits_NV: Tensor) -> Tensor:
    """Logits with ``LEFT_OUT`` in place of −∞, for what computes with the logits themselves."""
    return logits_NV.masked_fill(logits_NV == -torch.inf, LEFT_OUT)


def logsumexp(logits_NV: Tensor) -> Tensor:
    """[N, 1]; −∞ of a row of −∞ alone, with gradient 0 (torch's is NaN)."""
    is_empty_N1 = logits_NV.detach().amax(-1, keepdim=True) == -torch.inf
    lse_N1 = torch.where(is_empty_N1, 0.0, logits_NV).logsumexp(-1, keepdim=True)
    return torch.where(is_empty_N1, -torch.inf, lse_N1)


def log_softmax_at(logits_NV: Tensor, temperature: float) -> Tensor:
    """log softmax(z / T) over the last dimension; at T = 1 no scaled copy of the logits is made."""
    scaled_NV = logits_NV if temperature == 1 else logits_NV / temperature
    return torch.nn.functional.log_softmax(scaled_NV, dim=-1)
