"""One student rank's way to the teachers' actors.

The client alone retries: a lost or silent replica is a reason to ask another, and requests are
idempotent, so a killed teacher changes nothing but the time.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import (
    ActorDiedError,
    GetTimeoutError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayDirectTransportError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)

from distill.config import Stream
from distill.errors import DistillError, TeacherError
from distill.moe.state import GateGradient, GateState
from distill.records import DeviceOutput, GateRequest, Head, TeacherOutput, TeacherRequest
from distill.sampling.records import DraftRequest, Verdict, WriteRequest, WrittenText
from distill.teachers import direct
from distill.teachers.wires.base import on_host

logger = logging.getLogger(__name__)

_LOST = (
    RayActorError,  # with ActorDiedError and ActorUnavailableError
    GetTimeoutError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayDirectTransportError,  # its replica was lost between its answer and the fetching of it
    WorkerCrashedError,
)


@dataclass
class _Replica:
    actor: Any
    in_flight: int = 0  # of this client alone
    ping: Any = None  # outstanding since the replica failed; None: it is believed to be up
    death: str | None = None  # why it will not come back


@dataclass(frozen=True)
class Served:
    """Teachers that the same actors serve."""

    names: tuple[str, ...]
    actors: list[Any]


class RayTeacherClient:
    """One rank's client. Thread-safe; pickles without its counts."""

    def __init__(self, served: Sequence[Served], stream: Stream, rank: int) -> None:
        self._served = served
        self._stream = stream
        self._rank = rank
        self._lock = threading.Lock()
        self._replicas: dict[str, list[_Replica]] = {}
        for group in served:
            shared = [_Replica(actor) for actor in group.actors]
            self._replicas |= dict.fromkeys(group.names, shared)
        self._num_requests = dict.fromkeys(self._replicas, 0)
        self._num_retries = dict.fromkeys(self._replicas, 0)
        self._is_direct = stream.transport == "nixl"
        if self._is_direct:
            direct.prepare()

    def __reduce__(self) -> tuple[Any, ...]:
        return RayTeacherClient, (self._served, self._stream, self._rank)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._replicas)

    def ask(
        self,
        teacher: str,
        request: TeacherRequest,
        cancelled: threading.Event | None = None,
        on_sent: Callable[[], None] | None = None,
    ) -> TeacherOutput:
        """See TeacherClient. Each attempt waits ``deadline_s`` at most for its answer, and as long
        for a replica to be up; there are ``retries + 1`` attempts, and no more than that."""

        def send(actor: Any) -> Any:
            if self._is_direct:
                reference = direct.send(actor, teacher, request)
            else:
                reference = actor.answer.remote(teacher, request)
            if on_sent is not None:
                on_sent()
            return reference

        output = self._tried(teacher, f"request {request.request_id}", send, cancelled)
        return on_host(output) if isinstance(output, DeviceOutput) else output

    def head(self, teacher: str) -> Head:
        what = "for its output layer"
        return self._tried(teacher, what, lambda actor: actor.head.remote(teacher))

    def judge(self, teacher: str, request: DraftRequest) -> Verdict:
        what = f"drafts {request.request_id}"
        return self._tried(teacher, what, lambda actor: actor.judge.remote(teacher, request))

    def write(self, teacher: str, request: WriteRequest) -> WrittenText:
        what = f"prompts {request.request_id}"
        return self._tried(teacher, what, lambda actor: actor.write.remote(teacher, request))

    def gate(self, teacher: str) -> GateState:
        return self._tried(teacher, "for its gates", lambda actor: actor.gate.remote(teacher))

    def gate_gradient(
        self, teacher: str, request: GateRequest, cancelled: threading.Event | None = None
    ) -> GateGradient:
        return self._tried(
            teacher,
            f"request {request.request.request_id} for its gates' gradient",
            lambda actor: actor.gate_gradient.remote(teacher, request),
            cancelled,
        )

    def _tried(
        self,
        teacher: str,
        what: str,
        send: Callable[[Any], Any],
        cancelled: threading.Event | None = None,
    ) -> Any:
        """The response of some replica's actor to what ``send`` sends it."""
        cause: Exception | None = None
        num_attempts = 0
        while num_attempts <= self._stream.retries:
            replica = self._take(teacher, cancelled)
            if isinstance(replica, str):
                message = self._gave_up(teacher, what, num_attempts, replica)
                raise TeacherError(message) from cause
            num_attempts += 1
            try:
                return self._answer(replica, send, cancelled)
            except RayTaskError as error:
                raise own_error(error, f"teacher {teacher!r}") from None
            except _LOST as error:
                cause = error.with_traceback(None)  # which holds on to the answer
                logger.warning("teacher %r: %s: sending the request again", teacher, _brief(error))
                with self._lock:
                    self._num_retries[teacher] += 1
                    if replica.ping is None:
                        replica.ping = replica.actor.ping.remote()
            finally:
                with self._lock:
                    replica.in_flight -= 1
        assert cause is not None
        message = self._gave_up(teacher, what, num_attempts, f"the last: {_brief(cause)}")
        raise TeacherError(message) from cause

    def stats(self) -> dict[str, float]:
        with self._lock:
            requests, retries = self._num_requests, self._num_retries
            self._num_requests = dict.fromkeys(requests, 0)
            self._num_retries = dict.fromkeys(retries, 0)
        read = {f"teacher.{name}.requests": float(n) for name, n in requests.items()}
        return read | {f"teacher.{name}.retries": float(n) for name, n in retries.items()}

    def _take(self, teacher: str, cancelled: threading.Event | None) -> _Replica | str:
        """The replica with the fewest requests of this rank, or why there is none."""
        group = self._replicas[teacher]
        give_up = time.monotonic() + self._stream.deadline_s
        while True:
            with self._lock:
                up = [i for i, replica in enumerate(group) if _is_up(replica)]
                if up:
                    # Ties start at the rank, so that ranks do not all begin with replica 0.
                    order = {i: (i - self._rank) % len(group) for i in up}
                    chosen = min(up, key=lambda i: (group[i].in_flight, order[i]))
                    group[chosen].in_flight += 1
                    self._num_requests[teacher] += 1
                    return group[chosen]
            if all(replica.death for replica in group):
                return f"no replica is left: {group[0].death}"
            if time.monotonic() > give_up:
                return f"no replica restarted within {self._stream.deadline_s:g} s"
            if cancelled is not None and cancelled.is_set():
                raise CancelledError
            time.sleep(direct.POLL_S)

    def _answer(
        self,
        replica: _Replica,
        send: Callable[[Any], Any],
        cancelled: threading.Event | None,
    ) -> Any:
        give_up = time.monotonic() + self._stream.deadline_s
        reference = send(replica.actor)
        while True:
            rest = give_up - time.monotonic()
            done, _ = ray.wait([reference], timeout=max(0.0, min(direct.POLL_S, rest)))
            if done:
                if self._is_direct:
                    return direct.fetch(reference, give_up, cancelled)
                return ray.get(reference, timeout=max(1.0, rest))
            is_cancelled = cancelled is not None and cancelled.is_set()
            if is_cancelled or rest <= 0:
                ray.cancel(reference)  # takes it off the queue; what runs, runs to its end
                if is_cancelled:
                    raise CancelledError
                raise GetTimeoutError(f"no response within {self._stream.deadline_s:g} s")

    def _gave_up(self, teacher: str, what: str, num_attempts: int, cause: str) -> str:
        return (
            f"teacher {teacher!r} did not answer {what} in {num_attempts} "
            f"attempts; {cause}: see the logs of its actor, or raise stream.deadline_s "
            f"({self._stream.deadline_s:g}) or stream.retries ({self._stream.retries})"
        )


def _is_up(replica: _Replica) -> bool:
    """Whether to ask it; a replica that failed is up again when it has answered its ping."""
    if replica.death is not None:
        return False
    if replica.ping is None:
        return True
    done, _ = ray.wait([replica.ping], timeout=0)
    if not done:
        return False
    try:
        ray.get(replica.ping)
    except (ActorDiedError, RayTaskError) as error:
        replica.death = _brief(error)  # killed for good, or its model no longer loads
        return False
    except RayError:
        replica.ping = replica.actor.ping.remote()
        return False
    replica.ping = None
    return True


def own_error(error: RayTaskError, who: str) -> DistillError:
    """The exception that was raised inside the actor, as itself."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, DistillError):
        return cause
    return TeacherError(f"{who} failed: {cause or error}")


def _brief(error: Exception) -> str:
    cause = getattr(error, "cause", None) or error
    first = str(cause).strip().splitlines()
    return f"{type(cause).__name__}: {first[0] if first else ''}"
