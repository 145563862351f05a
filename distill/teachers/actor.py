"""Teachers in a process of their own: a thin shell around each one's :class:`TeacherEngine`."""

import itertools
import math
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

from distill.config import Transport
from distill.errors import DistillError, TeacherError
from distill.moe.state import GateGradient, GateState
from distill.records import DeviceOutput, GateRequest, Head, TeacherOutput, TeacherRequest
from distill.sampling.records import DraftRequest, Verdict, WriteRequest, WrittenText
from distill.teachers.batching import Batching
from distill.teachers.direct import check_installed, prepare
from distill.teachers.engine import TeacherEngine
from distill.teachers.serving import Servable, engines, told
from distill.teachers.turns import Turns


class TeacherActor:
    """Made a Ray actor by the pool, which lets two calls in where answers are packed: one request
    is computed at a time, whichever teacher it is for, and meanwhile the former one is encoded and
    packed, or the next is unpacked.

    Why the engines could not be built is kept and raised from :meth:`ping`: an exception in an
    actor's constructor reaches the driver only as the text of a traceback.
    """

    def __init__(self, teachers: Sequence[Servable], transport: Transport) -> None:
        """One teacher, or adapters that share a base."""
        self._engines: Mapping[str, TeacherEngine] = {}
        self._batching: Mapping[str, Batching] = {}
        self._failure: DistillError | None = None
        self._tickets = itertools.count()
        self._turns = Turns(0, threading.Event())
        try:
            if transport == "nixl":
                check_installed(told(teachers))
                prepare()
            num_threads = max(1, math.ceil(teachers[0].serving.cpus))
            self._engines = engines(teachers, num_threads)
            if teachers[0].serving.batch_requests:
                self._batching = {name: Batching(e) for name, e in self._engines.items()}
        except DistillError as error:
            self._failure = error
        except Exception as error:
            self._failure = TeacherError(f"{told(teachers)} cannot be served: {error}")

    def ping(self) -> None:
        """Return once the engines stand; raise what their construction raised."""
        if self._failure is not None:
            raise self._failure

    def answer(self, teacher: str, request: TeacherRequest) -> TeacherOutput:
        """The payload is *returned*: what an actor puts into the object store dies with it."""
        self.ping()
        engine = self._batching.get(teacher) or self._engines[teacher]
        return engine.answer(request, self._turn())

    def answer_on_device(self, teacher: str, request: TeacherRequest) -> DeviceOutput:
        """Of a pool whose transport is ``nixl``: the payload stays until the rank has fetched it,
        without a copy in the object store."""
        self.ping()
        return self._engines[teacher].answer_on_device(request, self._turn())

    def _turn(self) -> AbstractContextManager[None]:
        # Not a lock: whoever has just let go of it could take it again before one who waits.
        return self._turns.of(next(self._tickets))

    def judge(self, teacher: str, request: DraftRequest) -> Verdict:
        """Of a language model; see distill/sampling/judging.py."""
        self.ping()
        with self._turns.of(next(self._tickets)):
            return self._engines[teacher].judge(request)

    def write(self, teacher: str, request: WriteRequest) -> WrittenText:
        self.ping()
        with self._turns.of(next(self._tickets)):
            return self._engines[teacher].write(request)

    def head(self, teacher: str) -> Head:
        """Of a language model; see TeacherEngine."""
        self.ping()
        return self._engines[teacher].head()

    def gate(self, teacher: str) -> GateState:
        """Of a mixture of experts; see TeacherEngine."""
        self.ping()
        with self._turns.of(next(self._tickets)):
            return self._engines[teacher].gate()

    def gate_gradient(self, teacher: str, request: GateRequest) -> GateGradient:
        self.ping()
        with self._turns.of(next(self._tickets)):
            return self._engines[teacher].gate_gradient(request)

    def pid(self) -> int:
        """For tests that kill a replica."""
        return os.getpid()
