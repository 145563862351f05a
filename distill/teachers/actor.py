"""Teachers in a process of their own: a thin shell around each one's :class:`TeacherEngine`."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from distill.config import Transport
from distill.errors import DistillError, TeacherError
from distill.records import (
    DeviceOutput,
    GateGradient,
    GateRequest,
    GateState,
    Head,
    TeacherOutput,
    TeacherRequest,
)
from distill.sampling.records import DraftRequest, Verdict, WriteRequest, WrittenText
from distill.teachers.batching import Batching
from distill.teachers.direct import check_installed, prepare
from distill.teachers.engine import TeacherEngine
from distill.teachers.offload import Offload
from distill.teachers.queue import Queue, Status
from distill.teachers.served import ServedTeacher, named
from distill.teachers.serving import engines

CONTROL = "control"
"""The concurrency group of the calls that an actor responds to while it computes: :meth:`ping`,
:meth:`status`, :meth:`claim` and :meth:`pid`."""
MAX_CALLS = 256
"""Requests that wait in a replica and are counted there; further ones wait in Ray's own queue.
Each has a thread: 256 of them take 2 MB."""


class TeacherActor:
    """Made a Ray actor by the pool. One request is computed at a time, whichever teacher it is for,
    in the order of arrival (two, where ``at_once`` is); meanwhile the former one is encoded and
    packed, and the next ones are unpacked. A request comes with the name of the claim that its
    client has made for it, if any.

    Why the engines could not be built is kept and raised from :meth:`ping`: an exception in an
    actor's constructor reaches the driver only as the text of a traceback.
    """

    def __init__(
        self, teachers: Sequence[ServedTeacher], transport: Transport, at_once: int = 1
    ) -> None:
        """One teacher, or adapters that share a base. ``at_once``: requests that are computed at
        the same time by a teacher of one thread that can do so (TeacherEngine.is_reentrant)."""
        self._engines: Mapping[str, TeacherEngine] = {}
        self._batching: Mapping[str, Batching] = {}
        self._failure: DistillError | None = None
        self._queue = Queue(_check_cancelled)
        self._offload = Offload(named(teachers))
        try:
            if transport == "nixl":
                check_installed(named(teachers))
                prepare()
            num_threads = max(1, math.ceil(teachers[0].serving.cpus))
            self._engines = engines(teachers, num_threads)
            idle_s = teachers[0].serving.offload_idle_s
            self._offload = Offload(named(teachers), self._engines.values(), idle_s)
            if teachers[0].serving.batch_requests:
                self._batching = {name: Batching(e) for name, e in self._engines.items()}
            elif num_threads == 1 and all(e.is_reentrant for e in self._engines.values()):
                self._queue = Queue(_check_cancelled, at_once=at_once)
        except DistillError as error:
            self._failure = error
        except Exception as error:
            self._failure = TeacherError(f"{named(teachers)} cannot be served: {error}")

    def ping(self) -> None:
        """Return once the engines stand; raise what their construction raised."""
        if self._failure is not None:
            raise self._failure

    def status(self) -> Status:
        return self._queue.status(self._num_forwards)

    def claim(self, claim: str, most: int) -> Status:
        """The status before the claim, which is not made if more than ``most`` requests are held;
        see Queue."""
        return self._queue.claim(claim, most, self._num_forwards)

    def answer(self, teacher: str, request: TeacherRequest, claim: str = "") -> TeacherOutput:
        """The payload is *returned*: what an actor puts into the object store dies with it."""
        self.ping()
        engine = self._batching.get(teacher) or self._engines[teacher]
        return engine.answer(request, self._turn(claim))

    def answer_on_device(
        self, teacher: str, request: TeacherRequest, claim: str = ""
    ) -> DeviceOutput:
        """Of a pool whose transport is ``nixl``: the payload stays until the rank has fetched it,
        without a copy in the object store."""
        self.ping()
        return self._engines[teacher].answer_on_device(request, self._turn(claim))

    def judge(self, teacher: str, request: DraftRequest, claim: str = "") -> Verdict:
        """Of a language model; see distill/sampling/verification.py."""
        self.ping()
        with self._turn(claim):
            return self._engines[teacher].judge(request)

    def write(self, teacher: str, request: WriteRequest, claim: str = "") -> WrittenText:
        self.ping()
        with self._turn(claim):
            return self._engines[teacher].write(request)

    def head(self, teacher: str, claim: str = "") -> Head:
        """Of a language model; see TeacherEngine. Nothing is computed for it."""
        self.ping()
        self._queue.drop(claim)
        with self._offload.in_use():
            return self._engines[teacher].head()

    def gate(self, teacher: str, claim: str = "") -> GateState:
        """Of a mixture of experts; see TeacherEngine."""
        self.ping()
        with self._turn(claim):
            return self._engines[teacher].gate()

    def gate_gradient(self, teacher: str, request: GateRequest, claim: str = "") -> GateGradient:
        self.ping()
        with self._turn(claim):
            return self._engines[teacher].gate_gradient(request)

    def pid(self) -> int:
        """For tests that kill a replica."""
        return os.getpid()

    @contextmanager
    def _turn(self, claim: str) -> Iterator[None]:
        with self._queue.turn(claim), self._offload.in_use():
            yield

    @property
    def _num_forwards(self) -> int:
        return sum(engine.num_forwards for engine in self._engines.values())


def _check_cancelled() -> None:
    """Raise if the client has cancelled the request of this thread: nobody waits for it then."""
    import ray
    from ray.exceptions import TaskCancelledError  # of which alone Ray prints no traceback

    if ray.get_runtime_context().is_canceled():
        raise TaskCancelledError
