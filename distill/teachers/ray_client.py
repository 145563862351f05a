"""One student rank's way to the teachers' actors.

The client alone sends requests again: they are idempotent, so a killed teacher changes nothing but
the time. It does so when Ray reports that a replica is lost, or when the replica is suspected (see
distill/teachers/watch.py) and another one is up. How long a request waits in the queue of a healthy
replica does not matter. With one replica, a request costs no message but its own unless it waits
for a quarter of ``stream.deadline_s``.
"""

import logging
import threading
import time
import uuid
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
from distill.errors import DistillError, TeacherAway, TeacherError
from distill.records import Answer, RequestFor
from distill.teachers import direct
from distill.teachers.actor import CONTROL
from distill.teachers.queue import Status
from distill.teachers.transports import TRANSPORTS
from distill.teachers.watch import NO_LIMIT, PATIENCE_S, POLLS, ReplicaGroup, ReplicaHealth
from distill.wording import counted

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


Send = Callable[[Any, str], Any]
"""Of an actor and the name of a claim: calls it, and returns the reference of its response."""


@dataclass(frozen=True)
class Served:
    """Teachers that the same actors serve."""

    names: tuple[str, ...]
    actors: list[Any]


@dataclass
class _Replica:
    actor: Any
    watch: ReplicaHealth
    poll: Any = None  # the reference of the status request that is outstanding


class _Replicas:
    """Those of one teacher, or of teachers that share them. Used under the client's lock."""

    def __init__(self, served: Served, stream: Stream, rank: int) -> None:
        self.who = f"teacher {served.names[0]!r}"
        self.group = ReplicaGroup(len(served.actors), stream.deadline_s, stream.recovery_s, rank)
        self.all = [
            _Replica(actor, watch)
            for actor, watch in zip(served.actors, self.group.watches, strict=True)
        ]

    def collect(self) -> None:
        """The status that has come meanwhile; those that are not up are polled again."""
        for replica in self.all:
            if replica.poll is not None and ray.wait([replica.poll], timeout=0)[0]:
                poll, replica.poll = replica.poll, None
                replica.watch.poll_ended()
                self.read(replica, poll)
            now = time.monotonic()
            if not replica.watch.is_up and replica.watch.should_poll(now, now):
                self.poll(replica)

    def poll(self, replica: _Replica) -> Any:
        """The reference of its outstanding status request."""
        if replica.poll is None:
            replica.poll = control(replica.actor.status).remote()
            replica.watch.polled(time.monotonic())
        return replica.poll

    def read(self, replica: _Replica, reference: Any) -> Status | None:
        """A status that has come; None: the replica is not up."""
        try:
            status: Any = ray.get(reference)
        except (ActorDiedError, RayTaskError) as error:
            # Killed for good, or its model no longer loads.
            replica.watch.died(_brief(error), time.monotonic())
        except RayError as error:
            self.lost(replica, _brief(error))
        else:
            replica.watch.heard(status, time.monotonic())
            return status
        return None

    def lost(self, replica: _Replica, fault: str) -> None:
        replica.poll = None
        replica.watch.lost(fault, time.monotonic())

    def overdue(self, replica: _Replica, sent_at: float) -> str | None:
        """Why a request that waits at it should be sent again now, if there is a replica for it."""
        self.collect()
        watch, now = replica.watch, time.monotonic()
        if watch.should_poll(now, sent_at):
            self.poll(replica)
        was_up = watch.is_up
        why = watch.overdue(now, sent_at)
        if was_up and not watch.is_up:
            logger.warning("%s: a replica makes no progress: %s", self.who, why)
        return why if self.group.up else None


class RayTeacherClient:
    """One rank's client. Thread-safe; pickles without its counts."""

    def __init__(self, served: Sequence[Served], stream: Stream, rank: int) -> None:
        self._served = served
        self._stream = stream
        self._rank = rank
        self._lock = threading.Lock()
        self._replicas: dict[str, _Replicas] = {}
        for group in served:
            self._replicas |= dict.fromkeys(group.names, _Replicas(group, stream, rank))
        self._num_requests = dict.fromkeys(self._replicas, 0)
        self._num_retries = dict.fromkeys(self._replicas, 0)
        self._look_s = min(direct.POLL_S, stream.deadline_s / POLLS / 4)
        self._transport = TRANSPORTS[stream.transport]
        self._transport.prepare_client()

    def __reduce__(self) -> tuple[Any, ...]:
        return RayTeacherClient, (self._served, self._stream, self._rank)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._replicas)

    def call(
        self,
        teacher: str,
        request: RequestFor[Answer],
        cancelled: threading.Event | None = None,
        on_sent: Callable[[], None] | None = None,
    ) -> Answer:
        """See TeacherClient. Waits while a replica makes progress, and up to ``recovery_s`` while
        none is up; sends the request ``retries + 1`` times at most."""

        def send(actor: Any, claim: str) -> Any:
            reference = self._transport.send(actor, teacher, request, claim)
            if on_sent is not None:
                on_sent()
            return reference

        return self._tried(teacher, request.label, send, cancelled)

    def _tried(
        self,
        teacher: str,
        what: str,
        send: Send,
        cancelled: threading.Event | None = None,
    ) -> Any:
        """The response of some replica's actor to what ``send`` sends it."""
        replicas = self._replicas[teacher]
        num_sent = 0
        while True:
            replica, claim = self._take(teacher, what, cancelled)
            num_sent += 1
            cause: Exception | None = None
            try:
                return self._answer(teacher, what, replica, claim, send, cancelled)
            except RayTaskError as error:
                raise own_error(error, f"teacher {teacher!r}") from None
            except _Overdue as overdue:
                fault = str(overdue)
            except _LOST as error:
                cause = error.with_traceback(None)  # which holds on to the answer
                fault = _brief(error)
                with self._lock:
                    replicas.lost(replica, fault)
            finally:
                with self._lock:
                    replica.watch.in_flight -= 1
            if num_sent > self._stream.retries:
                raise TeacherError(
                    f"teacher {teacher!r} did not respond to {what}, which was sent "
                    f"{counted(num_sent, 'time')}; the last time: {fault}: see the logs of its "
                    f"actor, or raise stream.retries ({self._stream.retries}) or "
                    f"stream.deadline_s ({self._stream.deadline_s:g})"
                ) from cause
            with self._lock:
                self._num_retries[teacher] += 1
            logger.warning("teacher %r: %s: sending the request again", teacher, fault)

    def away(self) -> str | None:
        with self._lock:
            for replicas in dict.fromkeys(self._replicas.values()):
                replicas.collect()
                fault = replicas.group.away(time.monotonic())
                if fault is not None:
                    return f"{replicas.who}: {fault}"
        return None

    def stats(self) -> dict[str, float]:
        with self._lock:
            requests, retries = self._num_requests, self._num_retries
            self._num_requests = dict.fromkeys(requests, 0)
            self._num_retries = dict.fromkeys(retries, 0)
        read = {f"teacher.{name}.requests": float(n) for name, n in requests.items()}
        return read | {f"teacher.{name}.retries": float(n) for name, n in retries.items()}

    def _take(
        self, teacher: str, what: str, cancelled: threading.Event | None
    ) -> tuple[_Replica, str]:
        """A replica that is up, and the claim that was made there or nothing. Waits for one."""
        replicas = self._replicas[teacher]
        began = time.monotonic()
        while True:
            with self._lock:
                replicas.collect()
                num_up = len(replicas.group.up)
            if num_up > 0:
                found = self._claimed(replicas) if num_up > 1 else None
                with self._lock:
                    order = replicas.group.order(time.monotonic())
                    if found is None and order:
                        found = replicas.all[order[0]], ""
                    if found is not None:
                        found[0].watch.in_flight += 1
                        self._num_requests[teacher] += 1
                        return found
            self._check(teacher, what, began)
            if cancelled is not None and cancelled.is_set():
                raise CancelledError
            time.sleep(self._look_s)

    def _claimed(self, replicas: _Replicas) -> tuple[_Replica, str] | None:
        """The replica with the least work of all ranks, and a claim there: ranks that choose at the
        same time know of each other's. None: all that were up no longer are."""
        with self._lock:
            now, up = time.monotonic(), replicas.group.up
            prompt = [i for i in up if replicas.group.is_prompt(i, now)]
            polls = [replicas.poll(replicas.all[i]) for i in prompt]
        if polls:
            ray.wait(polls, num_returns=len(polls), timeout=PATIENCE_S)
        for num_left in reversed(range(len(up) + 1)):
            with self._lock:
                replicas.collect()
                now = time.monotonic()
                order = replicas.group.order(now)
                if not order:
                    return None
                most = replicas.group.most(now) if num_left else NO_LIMIT
            replica, claim = replicas.all[order[0]], uuid.uuid4().hex
            reference = control(replica.actor.claim).remote(claim, most)
            if not ray.wait([reference], timeout=PATIENCE_S)[0]:
                return replica, claim  # busy; a claim that comes after its request expires
            with self._lock:
                status = replicas.read(replica, reference)
            if status is not None and status.num_held <= most:
                return replica, claim
        return None

    def _answer(
        self,
        teacher: str,
        what: str,
        replica: _Replica,
        claim: str,
        send: Send,
        cancelled: threading.Event | None,
    ) -> Any:
        sent_at = time.monotonic()
        reference = send(replica.actor, claim)
        try:
            while not ray.wait([reference], timeout=self._look_s)[0]:
                if cancelled is not None and cancelled.is_set():
                    raise CancelledError
                with self._lock:
                    why = self._replicas[teacher].overdue(replica, sent_at)
                if why is not None:
                    raise _Overdue(why)
                self._check(teacher, what, sent_at)
        except (CancelledError, _Overdue, TeacherError):
            ray.cancel(reference)  # takes it off the queue; what runs, runs to its end
            raise
        timeout_s = max(1.0, self._stream.deadline_s)
        response = self._transport.fetch(reference, timeout_s, cancelled)
        with self._lock:
            replica.watch.answered(time.monotonic())
        return response

    def _check(self, teacher: str, what: str, waits_since: float) -> None:
        """Raise if there is no replica to wait for, or if it was waited for long enough."""
        with self._lock:
            group = self._replicas[teacher].group
            death, now = group.death, time.monotonic()
            is_given_up, fault = group.is_given_up(now, waits_since), group.fault
        who = f"teacher {teacher!r} did not respond to {what}"
        if death is not None:
            raise TeacherError(f"{who}; no replica is left: {death}")
        if is_given_up:
            recovery_s = f"{self._stream.recovery_s:g}"
            raise TeacherAway(
                f"{who}; no replica was up for {recovery_s} s ({fault}); see the logs of its "
                f"actor, or raise stream.recovery_s ({recovery_s})"
            )


class _Overdue(Exception):
    """A request should be sent again; why."""


def control(method: Any) -> Any:
    """A method that an actor responds to while it computes."""
    return method.options(concurrency_group=CONTROL)


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
