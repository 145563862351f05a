"""Whoever answers for teachers by name, and what an answer must be.

Shape suffixes: B rows, V classes.
"""

import threading
from collections.abc import Callable
from typing import Protocol

import numpy as np

from distill.errors import TeacherAnswerError, TeacherError
from distill.records import (
    GateGradient,
    GateRequest,
    GateState,
    Head,
    TeacherOutput,
    TeacherRequest,
)
from distill.sampling.records import DraftRequest, Verdict, WriteRequest, WrittenText
from distill.wires import DenseWire
from distill.wires.base import passes_of


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

    def head(self, teacher: str) -> Head:
        """The teacher's output layer, of language models; raises TeacherError."""
        ...

    def judge(self, teacher: str, request: DraftRequest) -> Verdict:
        """Of language models: which drafts pass; raises TeacherError."""
        ...

    def write(self, teacher: str, request: WriteRequest) -> WrittenText:
        """Of language models: the teacher's own text; raises TeacherError."""
        ...

    def gate(self, teacher: str) -> GateState:
        """A mixture of experts' gates as its folder has them; raises TeacherError."""
        ...

    def gate_gradient(
        self, teacher: str, request: GateRequest, cancelled: threading.Event | None = None
    ) -> GateGradient:
        """Of a student-aware router; blocks and raises as :meth:`ask`."""
        ...

    def away(self) -> str | None:
        """A teacher of which no replica was up for longer than ``stream.deadline_s``, and why;
        None without one.

        Its requests wait; after ``stream.recovery_s`` they raise TeacherAway.
        """
        ...

    def stats(self) -> dict[str, float]:
        """``teacher.<name>.requests`` and ``teacher.<name>.retries`` since the last call."""
        ...


_NOT_SERVED = "teacher {!r} is queried for new text, but it is no longer served"


class SilentTeachers:
    """A client that serves cached outputs only: any request to a teacher is an error."""

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
            f"the cache lacks {request.num_rows} outputs of teacher {teacher!r} (row "
            f"{request.rows_B[0]} first), and it is no longer served: the cache was changed while "
            "the sweep ran; run the sweep again, which requests the missing outputs"
        )

    def head(self, teacher: str) -> Head:
        raise TeacherError(
            f"the cache lacks the output layer of teacher {teacher!r}, and it is no longer served: "
            "run the sweep again, which requests it"
        )

    def judge(self, teacher: str, request: DraftRequest) -> Verdict:
        raise TeacherError(_NOT_SERVED.format(teacher))

    def write(self, teacher: str, request: WriteRequest) -> WrittenText:
        raise TeacherError(_NOT_SERVED.format(teacher))

    def gate(self, teacher: str) -> GateState:
        raise self._gone(teacher)

    def gate_gradient(
        self, teacher: str, request: GateRequest, cancelled: threading.Event | None = None
    ) -> GateGradient:
        raise self._gone(teacher)

    def _gone(self, teacher: str) -> TeacherError:
        return TeacherError(
            f"teacher {teacher!r} has gates that are trained, so its outputs change and cannot be "
            "cached for a sweep: set its moe.type to own or all"
        )

    def away(self) -> str | None:
        return None

    def stats(self) -> dict[str, float]:
        names = (
            f"teacher.{name}.{count}" for name in self.names for count in ("requests", "retries")
        )
        return dict.fromkeys(names, 0.0)


def check_output(request: TeacherRequest, output: TeacherOutput, num_labels: int) -> None:
    """Raise TeacherAnswerError unless the output answers this request, all of it, in its wire."""
    told = f"the output for request {request.request_id}"
    if output.request_id != request.request_id:
        raise TeacherAnswerError(f"{told} belongs to request {output.request_id}")
    if not np.array_equal(output.rows_B, request.rows_B):
        raise TeacherAnswerError(f"{told} is for different rows")
    wire = request.wire or DenseWire()
    if output.wire != wire.name:
        raise TeacherAnswerError(f"{told} cannot be read: {output.wire}, not {wire.name}")
    passes = passes_of(output.payload, request.num_passes)
    if passes is None:
        raise TeacherAnswerError(
            f"{told} has shape {list(output.payload.shape)}, which is not {request.num_passes} "
            "passes of one width"
        )
    for payload in passes:
        fault = wire.fault(payload, int(request.counts_B.sum()), num_labels)
        if fault is not None:
            raise TeacherAnswerError(f"{told} {fault}")


def check_gradient(request: GateRequest, gradient: GateGradient) -> None:
    """Raise TeacherAnswerError unless it is this request's, whole and finite."""
    asked = request.request
    told = f"the gate's gradient for request {asked.request_id}"
    if gradient.request_id != asked.request_id:
        raise TeacherAnswerError(f"{told} belongs to request {gradient.request_id}")
    if asked.gate is not None and gradient.values.shape != asked.gate.values.shape:
        raise TeacherAnswerError(
            f"{told} has {gradient.values.size} values, the gate has {asked.gate.values.size}"
        )
    if gradient.num_positions != int(asked.counts_B.sum()):
        raise TeacherAnswerError(f"{told} is of {gradient.num_positions} positions")
    if not np.isfinite(gradient.values).all():
        raise TeacherAnswerError(
            f"{told} holds NaN or infinity: serve the teacher in float32, or lower moe.lr"
        )
