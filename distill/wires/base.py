"""What every wire is: how a teacher's outputs are sent and cached, position by position.

A position is what one distribution is about: a row of a classifier, a token of a language model.
A wire is a configuration class with an encoder (at the teacher) and a decoder (at the student). Its
name travels with the payload and is part of the cache's key, so that no payload is ever read by
another codec.

Shape suffixes: P positions, N a block of positions, X a position's payload, V classes or
vocabulary, H hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import numpy as np

from distill.objectives import ForwardKL, Objective
from distill.records import DeviceOutput, Head, TeacherOutput
from distill.variant import Dtype, Variant

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from distill.lazy_torch import torch


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

    def resolved(self, of_tokens: bool, serving_dtype: Dtype) -> Self:
        """With defaults that depend on the task or on the teacher's arithmetic filled in."""
        return self

    def check(self, key: str, objective: Objective, temperatures: Sequence[float]) -> None:
        """Raise ConfigError, naming ``key``, for what this wire cannot serve."""

    def fault(self, payload: np.ndarray, num_positions: int, num_columns: int) -> str | None:
        """What is wrong with an answer about so many positions over so many classes or tokens."""
        raise NotImplementedError

    def encode(self, payload_PX: Tensor, seeds_P: np.ndarray | None = None) -> Tensor:
        """[P, …] of logits or hidden states, as :attr:`takes` names, to a payload [P, X] on their
        device: float32, uint8, or bfloat16's bits in int16.

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


def as_array(payload_PX: Tensor) -> np.ndarray:
    """The payload's bits on the host, as they are kept: int16 seen as uint16."""
    payload = payload_PX.cpu().numpy()
    return payload.view(np.uint16) if payload.dtype == np.int16 else payload


def on_host(output: DeviceOutput) -> TeacherOutput:
    """With its payload."""
    return replace(output.about, payload=as_array(output.payload_PX[: output.num_positions]))


def as_tensor(payload: np.ndarray) -> Tensor:
    """The payload's bits, uint16 seen as int16. Not copied: nothing may write into them."""
    if not payload.flags.writeable:
        payload = np.asarray(_Readable(payload))
    bits = torch.from_numpy(payload.view(np.int16) if payload.dtype == np.uint16 else payload)
    # The strides of a numpy array without rows are 0, and torch cannot view such bytes as numbers.
    return bits if len(bits) else bits.clone(memory_format=torch.contiguous_format)


class _Readable:
    """A read-only array as torch takes one without a warning, which no thread could suppress for
    itself alone."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array  # keeps the memory
        self.__array_interface__ = array.__array_interface__ | {"data": (array.ctypes.data, False)}


def are_finite(numbers: Tensor) -> bool:
    """Whether none of them is NaN or infinity.

    A finite sum proves it, in about a hundredth of the time that a test of each takes on a CPU. The
    sum of finite numbers may overflow too: then each is tested.
    """
    return bool(numbers.sum().isfinite()) or bool(numbers.isfinite().all())


def bits_of(numbers_PX: Tensor, dtype: Dtype) -> Tensor:
    """Numbers as they travel: float32, or bfloat16 (round to nearest even) in the bits of int16."""
    numbers_PX = numbers_PX.detach()
    # numpy has no bfloat16: the bits travel as integers.
    if dtype == "bfloat16":
        return numbers_PX.to(torch.bfloat16).view(torch.int16)
    return numbers_PX.to(torch.float32)


def passes_of(payload: np.ndarray, num_passes: int) -> list[np.ndarray] | None:
    """The output of each forward of a mixture of experts, [P, X] each; None for a payload
    [P, M · X] that cannot be split so."""
    if num_passes == 1:
        return [payload]
    if payload.ndim != 2 or payload.shape[1] % num_passes:
        return None
    # Copied: a wire of bytes reads numbers out of whole rows.
    return [np.ascontiguousarray(part) for part in np.split(payload, num_passes, axis=1)]


def array_fault(payload: np.ndarray, dtype: Dtype, shape: tuple[int, int | None]) -> str | None:
    """What is wrong with numbers that travel in ``dtype``; a None in ``shape`` may be anything."""
    expected = np.dtype(np.uint16 if dtype == "bfloat16" else np.float32)
    if payload.dtype != expected:
        return f"cannot be read: numbers of {payload.dtype}, expected {expected}"
    if payload.ndim != 2 or any(
        w not in (None, n) for w, n in zip(shape, payload.shape, strict=True)
    ):
        return f"has shape {list(payload.shape)}, expected {list(shape)}"
    numbers = as_tensor(payload)
    if dtype == "bfloat16":
        numbers = numbers.view(torch.bfloat16)
    return None if are_finite(numbers) else "holds NaN or infinity"


def bytes_fault(payload: np.ndarray, shape: tuple[int, int]) -> str | None:
    """What is wrong with positions that travel as bytes."""
    if payload.dtype != np.uint8 or payload.shape != shape:
        return (
            f"has shape {list(payload.shape)} of {payload.dtype}, expected {list(shape)} of uint8"
        )
    return None


def entries_fault(ids_NS: Tensor, values_NS: Tensor, num_columns: int) -> str | None:
    """What is wrong with ids of tokens, and a number for each."""
    if not are_finite(values_NS):
        return "holds NaN or infinity"
    if ids_NS.numel() and not 0 <= int(ids_NS.min()) <= int(ids_NS.max()) < num_columns:
        return f"names a token beyond the {num_columns} of the vocabulary"
    return None


def not_forward(objective: Objective) -> str:
    """For messages: the entry that is no forward KL; the whole sum where all are."""
    for key, member in objective.members.items():
        if not isinstance(member.at_tokens(), ForwardKL):
            return f"{key}.type {member.type!r}"
    return f"objective.type {objective.type!r}"
