"""Softmax at a temperature, and the logit of what it leaves out."""

from torch import Tensor
from torch.nn.functional import log_softmax

LEFT_OUT = -1e4
"""The logit of a token that is not compared: without probability at every temperature in use, and
finite in every number format of a wire, so that no divergence is infinite or NaN."""


def log_softmax_at(logits_NV: Tensor, temperature: float) -> Tensor:
    """log softmax(z / T) over the last dimension; at T = 1 no scaled copy of the logits is made."""
    return log_softmax(logits_NV if temperature == 1 else logits_NV / temperature, dim=-1)
