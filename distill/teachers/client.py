"""Whoever answers for teachers by name."""

import threading
from collections.abc import Callable
from typing import Protocol

from distill.errors import TeacherError
from distill.records import Answer, RequestFor


class TeacherClient(Protocol):
    """Whoever answers for teachers by name. Thread-safe."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def call(
        self,
        teacher: str,
        request: RequestFor[Answer],
        cancelled: threading.Event | None = None,
        on_sent: Callable[[], None] | None = None,
    ) -> Answer:
        """Block until the teacher has answered; ``on_sent`` is called once it is its turn to.

        Raises TeacherAnswerError for an answer that must not be trained on, TeacherError when
        there is none, and CancelledError soon after ``cancelled`` is set.
        """
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


class CacheOnlyClient:
    """A client that serves cached outputs only: any request to a teacher is an error."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def call(
        self,
        teacher: str,
        request: RequestFor[Answer],
        cancelled: threading.Event | None = None,
        on_sent: Callable[[], None] | None = None,
    ) -> Answer:
        raise TeacherError(request.not_served(teacher))

    def away(self) -> str | None:
        return None

    def stats(self) -> dict[str, float]:
        names = (
            f"teacher.{name}.{count}" for name in self.names for count in ("requests", "retries")
        )
        return dict.fromkeys(names, 0.0)
