"""Softmax at a temperature."""

from torch import Tensor
from torch.nn.functional import log_softmax


def log_softmax_at(logits_NV: Tensor, temperature: float) -> Tensor:
    """log softmax(z / T) over the last dimension; at T = 1 no scaled copy of the logits is made."""
    return log_softmax(logits_NV if temperature == 1 else logits_NV / temperature, dim=-1)
