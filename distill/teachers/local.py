"""Teachers inside this process: for tests, for one GPU, and with Ray not even installed."""

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager

from distill.records import (
    GateGradient,
    GateRequest,
    GateState,
    Head,
    TeacherOutput,
    TeacherRequest,
)
from distill.sampling.records import DraftRequest, Verdict, WriteRequest, WrittenText
from distill.teachers.engine import TeacherEngine


class LocalTeachers:
    """A client over engines of this process (distill/teachers/serving.py makes those of adapters on
    one base); one request at a time each, as an actor has it."""

    def __init__(self, engines: Mapping[str, TeacherEngine]) -> None:
        self._engines = dict(engines)
        self._locks = {name: threading.Lock() for name in engines}
        self._num_requests = dict.fromkeys(engines, 0)
        self._count_lock = threading.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._engines)

    def ask(
        self,
        teacher: str,
        request: TeacherRequest,
        cancelled: threading.Event | None = None,
        on_sent: Callable[[], None] | None = None,
    ) -> TeacherOutput:
        with self._turn(teacher, cancelled, on_sent) as engine:
            return engine.answer(request)

    def head(self, teacher: str) -> Head:
        return self._engines[teacher].head()

    def gate(self, teacher: str) -> GateState:
        with self._locks[teacher]:
            return self._engines[teacher].gate()

    def gate_gradient(
        self, teacher: str, request: GateRequest, cancelled: threading.Event | None = None
    ) -> GateGradient:
        with self._turn(teacher, cancelled) as engine:
            return engine.gate_gradient(request)

    @contextmanager
    def _turn(
        self,
        teacher: str,
        cancelled: threading.Event | None,
        on_sent: Callable[[], None] | None = None,
    ) -> Iterator[TeacherEngine]:
        with self._locks[teacher]:
            if on_sent is not None:
                on_sent()
            if cancelled is not None and cancelled.is_set():
                raise CancelledError
            with self._count_lock:
                self._num_requests[teacher] += 1
            yield self._engines[teacher]

    def judge(self, teacher: str, request: DraftRequest) -> Verdict:
        with self._locks[teacher]:
            return self._engines[teacher].judge(request)

    def write(self, teacher: str, request: WriteRequest) -> WrittenText:
        with self._locks[teacher]:
            return self._engines[teacher].write(request)

    def away(self) -> str | None:
        return None

    def stats(self) -> dict[str, float]:
        with self._count_lock:
            counts = self._num_requests
            self._num_requests = dict.fromkeys(counts, 0)
        requests = {f"teacher.{name}.requests": float(n) for name, n in counts.items()}
        return requests | {f"teacher.{name}.retries": 0.0 for name in counts}
