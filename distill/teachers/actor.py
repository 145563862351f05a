"""A teacher in a process of its own: a thin shell around :class:`TeacherEngine`."""

import itertools
import math
import os
import threading
from pathlib import Path

from distill.config import Serving
from distill.errors import DistillError, TeacherError
from distill.moe.state import GateGradient, GateState
from distill.records import GateRequest, Head, TeacherOutput, TeacherRequest
from distill.sampling.records import DraftRequest, Verdict, WriteRequest, WrittenText
from distill.teachers.engine import Model, TeacherEngine
from distill.teachers.turns import Turns


class TeacherActor:
    """Made a Ray actor by the pool, which lets two calls in: one request is computed at a time,
    and the next is unpacked, or the last packed, meanwhile.

    Why the engine could not be built is kept and raised from :meth:`ping`: an exception in an
    actor's constructor reaches the driver only as the text of a traceback.
    """

    def __init__(
        self,
        name: str,
        model: str | Path | Model,
        serving: Serving,
        num_labels: int,
        is_language_model: bool = False,
    ) -> None:
        self._engine: TeacherEngine | None = None
        self._failure: DistillError | None = None
        self._tickets = itertools.count()
        self._turns = Turns(0, threading.Event())
        try:
            self._engine = TeacherEngine(
                model,
                num_labels=num_labels,
                device="cuda" if serving.num_gpus > 0 else "cpu",
                dtype=serving.dtype,
                wire=serving.wire,
                max_batch_tokens=serving.max_batch_tokens,
                allow_pickle=serving.allow_pickle,
                num_threads=max(1, math.ceil(serving.num_cpus)),
                is_language_model=is_language_model,
                moe=serving.moe,
            )
        except DistillError as error:
            self._failure = error
        except Exception as error:
            self._failure = TeacherError(f"teacher {name!r} cannot be served: {error}")

    def ping(self) -> None:
        """Return once the engine stands; raise what its construction raised."""
        if self._failure is not None:
            raise self._failure

    def answer(self, request: TeacherRequest) -> TeacherOutput:
        """The payload is *returned*: what an actor puts into the object store dies with it."""
        self.ping()
        assert self._engine is not None
        # Not a lock: whoever has just let go of it could take it again before one who waits.
        with self._turns.of(next(self._tickets)):
            return self._engine.answer(request)

    def judge(self, request: DraftRequest) -> Verdict:
        """Of a language model; see distill/sampling/judging.py."""
        self.ping()
        assert self._engine is not None
        with self._turns.of(next(self._tickets)):
            return self._engine.judge(request)

    def write(self, request: WriteRequest) -> WrittenText:
        self.ping()
        assert self._engine is not None
        with self._turns.of(next(self._tickets)):
            return self._engine.write(request)

    def head(self) -> Head:
        """Of a language model; see TeacherEngine."""
        self.ping()
        assert self._engine is not None
        return self._engine.head()

    def gate(self) -> GateState:
        """Of a mixture of experts; see TeacherEngine."""
        self.ping()
        assert self._engine is not None
        with self._turns.of(next(self._tickets)):
            return self._engine.gate()

    def gate_gradient(self, request: GateRequest) -> GateGradient:
        self.ping()
        assert self._engine is not None
        with self._turns.of(next(self._tickets)):
            return self._engine.gate_gradient(request)

    def pid(self) -> int:
        """For tests that kill a replica."""
        return os.getpid()
