"""Teachers in a process of their own: a thin shell around each one's backend."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from distill.errors import DistillError, TeacherError
from distill.records import Answer, DeviceOutput, RequestFor
from distill.teachers.backends import open_backends
from distill.teachers.backends.contract import TeacherBackend
from distill.teachers.backends.forwards import ForwardBackend
from distill.teachers.batching import Batching
from distill.teachers.offload import Offload
from distill.teachers.queue import Queue, Status
from distill.teachers.requests import TeacherRequest
from distill.teachers.served import ServedTeacher, named
from distill.teachers.transports import Transport

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

    Why the backends could not be built is kept and raised from :meth:`ping`: an exception in an
    actor's constructor reaches the driver only as the text of a traceback.
    """

    def __init__(
        self, teachers: Sequence[ServedTeacher], transport: Transport, at_once: int = 1
    ) -> None:
        """One teacher, or adapters that share a base. ``at_once``: requests that are computed at
        the same time by a teacher of one thread that can do so (TeacherBackend.is_reentrant)."""
        self._backends: Mapping[str, TeacherBackend] = {}
        self._batching: Mapping[str, Batching] = {}
        self._failure: DistillError | None = None
        self._queue = Queue(_check_cancelled)
        self._offload = Offload(named(teachers))
        try:
            transport.prepare_replica(named(teachers))
            num_threads = max(1, math.ceil(teachers[0].serving.cpus))
            self._backends = open_backends(teachers, num_threads)
            idle_s = teachers[0].serving.offload_idle_s
            self._offload = Offload(named(teachers), self._backends.values(), idle_s)
            if teachers[0].serving.batch_requests:
                self._batching = {
                    name: Batching(backend)
                    for name, backend in self._backends.items()
                    if isinstance(backend, ForwardBackend)
                }
            elif num_threads == 1 and all(b.is_reentrant for b in self._backends.values()):
                self._queue = Queue(_check_cancelled, at_once=at_once)
        except DistillError as error:
            self._failure = error
        except Exception as error:
            self._failure = TeacherError(f"{named(teachers)} cannot be served: {error}")

    def ping(self) -> None:
        """Return once the backends stand; raise what their construction raised."""
        if self._failure is not None:
            raise self._failure

    def status(self) -> Status:
        return self._queue.status(self._num_forwards)

    def claim(self, claim: str, most: int) -> Status:
        """The status before the claim, which is not made if more than ``most`` requests are held;
        see Queue."""
        return self._queue.claim(claim, most, self._num_forwards)

    def call(self, teacher: str, request: RequestFor[Answer], claim: str = "") -> Answer:
        """The payload is *returned*: what an actor puts into the object store dies with it."""
        self.ping()
        answers = self._batching.get(teacher) or self._backends[teacher]
        return answers.call(request, self._turn(request, claim))

    def call_on_device(
        self, teacher: str, request: TeacherRequest, claim: str = ""
    ) -> DeviceOutput:
        """Of a pool whose transport is ``nixl``: the payload stays until the rank has fetched it,
        without a copy in the object store."""
        self.ping()
        return self._backends[teacher].call_on_device(request, self._turn(request, claim))

    def pid(self) -> int:
        """For tests that kill a replica."""
        return os.getpid()

    @contextmanager
    def _turn(self, request: RequestFor[Any], claim: str) -> Iterator[None]:
        if not request.takes_turn:
            self._queue.drop(claim)
        waits = self._queue.turn(claim) if request.takes_turn else nullcontext()
        with waits, self._offload.in_use():
            yield

    @property
    def _num_forwards(self) -> int:
        return sum(backend.num_forwards for backend in self._backends.values())


def _check_cancelled() -> None:
    """Raise if the client has cancelled the request of this thread: nobody waits for it then."""
    import ray
    from ray.exceptions import TaskCancelledError  # of which alone Ray prints no traceback

    if ray.get_runtime_context().is_canceled():
        raise TaskCancelledError
