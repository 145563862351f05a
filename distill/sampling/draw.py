"""Drawing tokens, from numbers that depend on seed, step, row and place alone.

Which rows share a batch, a rank or a replica so changes nothing of what is drawn.
Shape suffixes: B rows, G places of a row, V vocabulary.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from distill.config.sampling import Decoding
from distill.data.splits import mix64

STUDENT, TEACHER = 0, 1


def row_seeds(seed: int, step: int, rows_B: np.ndarray) -> np.ndarray:
    """uint64[B]."""
    base = mix64(mix64(np.array([seed], np.uint64)) + np.uint64(step))
    return mix64(base + rows_B.astype(np.uint64))


def uniforms(seeds_B: np.ndarray, places_B: np.ndarray, who: int) -> np.ndarray:
    """float64[B] in [0, 1): of each row at a place of what is written, for the one who draws."""
    bits_B = mix64(seeds_B + places_B.astype(np.uint64) * np.uint64(2) + np.uint64(who))
    return (mix64(bits_B) >> np.uint64(11)) * 2.0**-53


def draw(logits_BV: Tensor, decoding: Decoding, uniform_B: np.ndarray) -> Tensor:
    """int64[B]: the token at which the cumulative probability first passes ``uniform_B``."""
    if decoding.temperature == 0:
        return logits_BV.argmax(-1)
    order_BV = None
    scaled_BV = logits_BV.double() / decoding.temperature
    if decoding.top_p < 1:
        scaled_BV, order_BV = scaled_BV.sort(dim=-1, descending=True, stable=True)
    probs_BV = scaled_BV.softmax(-1)
    up_to_BV = probs_BV.cumsum(-1)
    if decoding.top_p < 1:
        probs_BV = probs_BV.masked_fill(up_to_BV - probs_BV >= decoding.top_p, 0.0)
        up_to_BV = probs_BV.cumsum(-1)
    uniform_B1 = torch.from_numpy(uniform_B).to(logits_BV.device)[:, None]
    places_B1 = torch.searchsorted(up_to_BV, uniform_B1 * up_to_BV[:, -1:], right=True)
    # Rounding can lead past the last token that has a probability.
    last_B1 = (probs_BV > 0).long().cumsum(-1).argmax(-1, keepdim=True)
    places_B1 = torch.minimum(places_B1, last_B1)
    return (places_B1 if order_BV is None else order_BV.gather(-1, places_B1))[:, 0]


def are_kept(
    logits_BGV: Tensor, drafts_BG: Tensor, top_k: int, nucleus: float | None = None
) -> Tensor:
    """bool[B, G]: whether the teacher, whose raw logits these are, accepts a draft."""
    own_BG1 = logits_BGV.gather(-1, drafts_BG[..., None])
    are_likelier_BGV = logits_BGV > own_BG1
    if nucleus is None:
        return are_likelier_BGV.sum(-1) < top_k
    mass_BG = (logits_BGV.double().softmax(-1) * are_likelier_BGV).sum(-1)
    return mass_BG < nucleus
