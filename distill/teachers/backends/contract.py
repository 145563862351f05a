"""What computes one teacher's outputs: the contract of every backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Literal, Self

from distill.errors import TeacherError
from distill.models.weights import weights_fingerprint
from distill.records import Answer, DeviceOutput, RequestFor
from distill.teachers.requests import TeacherRequest
from distill.teachers.served import ServedTeacher

Turn = AbstractContextManager[Any]
"""Held while a backend computes."""
NO_TURN: Turn = nullcontext()
"""Of a backend that is called by one thread."""


class TeacherBackend:
    """One teacher. The same request always has the same answer, whatever came before it.

    A backend is entered in :data:`distill.teachers.backends.BACKENDS` under the name that
    ``ServedTeacher.backend`` gives.
    """

    positions: ClassVar[Literal["rows", "tokens"]] = "rows"
    """What one distribution of its outputs is about."""
    num_forwards = 0
    """Finished ones, each token step of generation and verification too: tells a slow model from
    one that hangs. Adapters on one base count those of all."""

    def __init__(self, teacher: ServedTeacher) -> None:
        self.teacher = teacher

    @classmethod
    def open(cls, group: Sequence[ServedTeacher]) -> Sequence[Self]:
        """Backends of teachers that share a process, in their order. Raises ModelError for unusable
        folders."""
        return [cls(teacher) for teacher in group]

    @classmethod
    def fingerprint(
        cls, teacher: ServedTeacher, of_weights: Callable[[str], str] = weights_fingerprint
    ) -> str:
        """Hex digits that differ where the teacher's folder, or its adapter, would give other
        outputs. The model is not loaded. ``of_weights``: of a folder, perhaps from memory."""
        raise NotImplementedError

    @property
    def serves(self) -> Mapping[type[RequestFor[Any]], Callable[[Any, Turn], Any]]:
        """The kinds of request that it answers, and the method of each."""
        raise NotImplementedError

    def call(self, request: RequestFor[Answer], turn: Turn = NO_TURN) -> Answer:
        """The answer. ``turn``: held while the model computes.

        Raises TeacherAnswerError for one that must not be used, TeacherError for a kind of request
        that this backend does not serve.
        """
        serve = self.serves.get(type(request))
        if serve is None:
            kinds = ", ".join(kind.__name__ for kind in self.serves)
            raise TeacherError(
                f"teacher {self.teacher.name!r} cannot answer {request.label}: "
                f"{type(self).__name__} serves {kinds}, not {type(request).__name__}"
            )
        return serve(request, turn)

    def call_on_device(self, request: TeacherRequest, turn: Turn = NO_TURN) -> DeviceOutput:
        """As :meth:`call`, all of it on the model's device."""
        raise NotImplementedError

    @property
    def is_reentrant(self) -> bool:
        """Whether several threads may call it at once."""
        return False

    def offload(self) -> None:
        """Move the model to host memory. Not during a request."""

    def restore(self) -> None:
        """Move the model back, bit-identical; raises torch.OutOfMemoryError."""
