"""What every wire is: how a teacher's answers travel and are kept, position by position.

A position is what one distribution is about: a row of a classifier, a token of a language model.
A wire is a configuration class with an encoder (at the teacher) and a decoder (at the student). Its
name travels with the payload and is part of the cache's key, so that no payload is ever read by
another codec.

Shape suffixes: P positions, N a block of positions, X a position's payload, V classes or
vocabulary, H hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor

from distill.objectives import Objective
from distill.records import Head
from distill.variant import Dtype, Variant


class WireFormat(Variant):
    """``encode`` and, where ``is_exact``, ``logits``; of the others, ``forward_kl``."""

    takes: ClassVar[Literal["logits", "hidden"]] = "logits"
    """What ``encode`` is given of each position: logits [V], or the last hidden state [H]."""
    is_exact: ClassVar[bool] = True
    """Whether the teacher's logits come back whole. Of the others only the forward KL can be had,
    one teacher at a time: Σ w_k KL(p_k ‖ p_S), whose gradient is that of KL(Σ w_k p_k ‖ p_S)."""

    @property
    def name(self) -> str:
        """The codec's, with all that decides its bytes, e.g. ``dense/float32``."""
        raise NotImplementedError

    def resolved(self, is_language_model: bool, serving_dtype: Dtype) -> Self:
        """With defaults that depend on the task or on the teacher's arithmetic filled in."""
        return self

    def check(self, key: str, objective: Objective, temperatures: Sequence[float]) -> None:
        """Raise ConfigError, naming ``key``, for what this wire cannot serve."""

    def encode(self, said_PX: Tensor, seeds_P: np.ndarray | None = None) -> np.ndarray:
        """[P, …] of logits or hidden states, as :attr:`takes` says, to a payload [P, X].

        Of logits, only the columns that teacher and student share: what is not exact counts the
        mass of all that it is given. ``seeds_P`` (int64) seeds whatever is random about a position.
        """
        raise NotImplementedError

    def logits(self, payload_NX: Tensor, head: Head | None, columns: slice = slice(None)) -> Tensor:
        """float32 [N, V], raw, on the payload's device; only some ``columns`` of it if given.

        ``head``: the teacher's, of wires that take hidden states.
        """
        raise NotImplementedError

    def forward_kl(
        self, payload_NX: Tensor, student_logits_NV: Tensor, temperature: float
    ) -> Tensor:
        """[N] KL(p_T ‖ p_S) in nats, or its estimate; differentiable in the student's logits."""
        raise NotImplementedError


def as_tensor(payload: np.ndarray) -> Tensor:
    """The payload's bits (copied: Ray's and the cache's are read-only), uint16 seen as int16."""
    payload = payload.copy()
    return torch.from_numpy(payload.view(np.int16) if payload.dtype == np.uint16 else payload)
