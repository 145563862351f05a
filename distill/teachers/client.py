"""Whoever answers for teachers by name, and what an answer must be.

Shape suffixes: B rows, V classes.
"""

import threading
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from distill.errors import TeacherAnswerError, TeacherError
from distill.records import TeacherOutput, TeacherRequest
from distill.teachers.wires import decode_dense


class TeacherClient(Protocol):
    """Whoever answers for teachers by name. Thread-safe."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def ask(
        self,
        teacher: str,
        request: TeacherRequest,
        cancelled: threading.Event | None = None,
        on_sent: Callable[[], None] | None = None,
    ) -> TeacherOutput:
        """Block until the teacher has answered; ``on_sent`` is called once it is its turn to.

        Raises TeacherAnswerError for an answer that must not be trained on, TeacherError when
        there is none, and CancelledError soon after ``cancelled`` is set.
        """
        ...

    def stats(self) -> dict[str, float]:
        """``teacher.<name>.requests`` and ``teacher.<name>.retries`` since the last call."""
        ...


class SilentTeachers:
    """A client of teachers that have said all they had to say: whoever asks gets an error."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def ask(
        self,
        teacher: str,
        request: TeacherRequest,
        cancelled: threading.Event | None = None,
        on_sent: Callable[[], None] | None = None,
    ) -> TeacherOutput:
        raise TeacherError(
            f"the cache lacks {request.num_rows} answers of teacher {teacher!r} (row "
            f"{request.rows_B[0]} first), and it is no longer served: the cache was changed while "
            "the sweep ran; run the sweep again, which asks for what is missing"
        )

    def stats(self) -> dict[str, float]:
        names = (
            f"teacher.{name}.{count}" for name in self.names for count in ("requests", "retries")
        )
        return dict.fromkeys(names, 0.0)


def check_output(request: TeacherRequest, output: TeacherOutput, num_labels: int) -> Tensor:
    """The output's float32 logits [B, V], if they answer this request; else TeacherAnswerError."""
    told = f"the answer to request {request.request_id}"
    if output.request_id != request.request_id:
        raise TeacherAnswerError(f"{told} belongs to request {output.request_id}")
    if not np.array_equal(output.rows_B, request.rows_B):
        raise TeacherAnswerError(f"{told} is about other rows than those asked for")
    try:
        logits_BV = decode_dense(output.payload, output.wire)
    except ValueError as error:
        raise TeacherAnswerError(f"{told} cannot be read: {error}") from None
    expected = (request.num_rows, num_labels)
    if tuple(logits_BV.shape) != expected:
        raise TeacherAnswerError(
            f"{told} has shape {list(logits_BV.shape)}, expected {list(expected)}"
        )
    if not torch.isfinite(logits_BV).all():
        raise TeacherAnswerError(f"{told} holds NaN or infinity")
    return logits_BV
