"""Teachers inside this process: for tests, for one GPU, and with Ray not even installed."""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError

from distill.records import Answer, RequestFor
from distill.teachers.backends.contract import TeacherBackend


class LocalTeachers:
    """A client over backends of this process; one request at a time each, as an actor has it."""

    def __init__(self, backends: Mapping[str, TeacherBackend]) -> None:
        self.backends = dict(backends)
        self._locks = {name: threading.Lock() for name in backends}
        self._num_requests = dict.fromkeys(backends, 0)
        self._count_lock = threading.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.backends)

    def call(
        self,
        teacher: str,
        request: RequestFor[Answer],
        cancelled: threading.Event | None = None,
        on_sent: Callable[[], None] | None = None,
    ) -> Answer:
        with self._locks[teacher]:
            if on_sent is not None:
                on_sent()
            if cancelled is not None and cancelled.is_set():
                raise CancelledError
            with self._count_lock:
                self._num_requests[teacher] += 1
            return self.backends[teacher].call(request)

    def away(self) -> str | None:
        return None

    def stats(self) -> dict[str, float]:
        with self._count_lock:
            counts = self._num_requests
            self._num_requests = dict.fromkeys(counts, 0)
        requests = {f"teacher.{name}.requests": float(n) for name, n in counts.items()}
        return requests | {f"teacher.{name}.retries": 0.0 for name in counts}
