"""How a teacher's raw logits travel and are kept: numpy arrays whose first dimension is the row.

A wire is a name (``dense/bfloat16``), an encoder and a decoder. The name travels with the payload
and is part of the cache's key, so that no payload is ever read by another codec. A further wire
is a further configuration class, and a branch in each of the three functions here.

Shape suffixes: B rows, V classes or vocabulary.
"""

import numpy as np
import torch
from torch import Tensor

from distill.config import DenseWire


def wire_name(wire: DenseWire) -> str:
    """The codec's name, e.g. ``dense/float32``."""
    return f"{wire.type}/{wire.dtype}"


def encode(logits_BV: Tensor, wire: DenseWire) -> np.ndarray:
    """[B, V] as float32, or as bfloat16 (round to nearest even) in the bits of uint16."""
    logits_BV = logits_BV.detach().cpu()
    if wire.dtype == "bfloat16":
        # numpy has no bfloat16: the bits travel as integers.
        return logits_BV.to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    return logits_BV.to(torch.float32).numpy()


def decode(payload: np.ndarray, name: str) -> Tensor:
    """The float32 logits [B, V] in a payload; ValueError for a codec that this version lacks."""
    if name == "dense/float32" and payload.dtype == np.float32:
        return torch.from_numpy(payload.copy())  # copied: Ray's and the cache's are read-only
    if name == "dense/bfloat16" and payload.dtype == np.uint16:
        return torch.from_numpy((payload.astype(np.uint32) << 16).view(np.float32))
    raise ValueError(f"no wire {name!r} with payloads of {payload.dtype}")
