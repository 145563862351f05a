"""How a teacher's outputs are sent and cached: one codec interface, chosen for each teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from distill.wires.base import WireFormat, as_tensor
from distill.wires.dense import DenseWire
from distill.wires.hidden import HiddenWire
from distill.wires.sampled import SampledWire
from distill.wires.topk import TopKWire

if TYPE_CHECKING:
    from torch import Tensor

Wire = Annotated[DenseWire | HiddenWire | TopKWire | SampledWire, Field(discriminator="type")]

_DENSE = {
    "dense/float32": (DenseWire(dtype="float32"), np.dtype(np.float32)),
    "dense/bfloat16": (DenseWire(dtype="bfloat16"), np.dtype(np.uint16)),
}


def decode_dense(payload: np.ndarray, name: str) -> Tensor:
    """The float32 logits [P, V] in a dense payload, copied; ValueError for another codec's."""
    if name in _DENSE and payload.dtype == _DENSE[name][1]:
        return _DENSE[name][0].logits(as_tensor(payload.copy()), None)
    raise ValueError(f"no dense wire {name!r} with payloads of {payload.dtype}")


__all__ = [
    "DenseWire",
    "HiddenWire",
    "SampledWire",
    "TopKWire",
    "Wire",
    "WireFormat",
    "as_tensor",
    "decode_dense",
]
