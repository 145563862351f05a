"""Teachers as Ray actors. The driver makes the pool; each student rank asks through a client.

The client alone retries: a lost or silent replica is a reason to ask another, and requests are
idempotent, so a killed teacher changes nothing but the time.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import ray
from ray.exceptions import (
    ActorDiedError,
    GetTimeoutError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)

from distill.config import Serving, Stream
from distill.errors import DistillError, TeacherError
from distill.records import TeacherOutput, TeacherRequest
from distill.teachers.actor import TeacherActor
from distill.teachers.engine import Model

logger = logging.getLogger(__name__)

_LOST = (
    RayActorError,  # with ActorDiedError and ActorUnavailableError
    GetTimeoutError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    WorkerCrashedError,
)
_POLL_S = 0.2  # how soon a cancelled request, or a replica that is back, is noticed


class Servable(Protocol):
    """What the pool must know of a teacher."""

    @property
    def name(self) -> str: ...
    @property
    def folder(self) -> str | Path | Model: ...
    @property
    def serving(self) -> Serving: ...
    @property
    def num_labels(self) -> int: ...


@dataclass(frozen=True)
class TeacherSpec:
    """``folder`` may also be a model that pickles (simulated teachers)."""

    name: str
    folder: str | Path | Model
    serving: Serving
    num_labels: int


class RayTeacherPool:
    """``serving.replicas`` actors for each teacher; gone when closed. Also a context manager."""

    def __init__(self, specs: Sequence[Servable], start_deadline_s: float = 300.0) -> None:
        """Returns when every replica has loaded its model.

        Raises the loading error of a teacher as itself, or TeacherError at the deadline, with
        what it wants and what the cluster has. Nothing is left running then.
        """
        self._actors: dict[str, list[Any]] = {}
        try:
            for spec in specs:
                self._actors[spec.name] = [_start(spec) for _ in range(spec.serving.replicas)]
            give_up = time.monotonic() + start_deadline_s
            for spec in specs:
                self._wait_until_ready(spec, give_up, start_deadline_s)
        except BaseException:
            self.close()
            raise

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._actors)

    def client(self, stream: Stream, rank: int = 0) -> "RayTeacherClient":
        """For one student rank; may be sent to its process."""
        return RayTeacherClient(self._actors, stream, rank)

    def pids(self, teacher: str) -> list[int]:
        """Of the replicas' processes, for tests that kill one."""
        return ray.get([actor.pid.remote() for actor in self._actors[teacher]])

    def close(self) -> None:
        for actors in self._actors.values():
            for actor in actors:
                if ray.is_initialized():
                    ray.kill(actor, no_restart=True)
        self._actors = {}

    def __enter__(self) -> "RayTeacherPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait_until_ready(self, spec: Servable, give_up: float, deadline_s: float) -> None:
        pings = [actor.ping.remote() for actor in self._actors[spec.name]]
        patience = max(0.0, min(15.0, give_up - time.monotonic()))
        ready, _ = ray.wait(pings, num_returns=len(pings), timeout=patience)
        if len(ready) < len(pings):
            # Said early: on a cluster that cannot grow, waiting longer will not help.
            logger.warning("still waiting for %s", _wants(spec))
            rest = max(0.0, give_up - time.monotonic())
            ready, _ = ray.wait(pings, num_returns=len(pings), timeout=rest)
        for ping in ready:
            try:
                ray.get(ping)
            except RayTaskError as error:
                raise _own(error, spec.name) from None
            except RayError as error:
                message = f"teacher {spec.name!r} was lost while starting: {error}"
                raise TeacherError(message) from error
        if len(ready) < len(pings):
            raise TeacherError(
                f"{len(pings) - len(ready)} of {len(pings)} replicas did not start within "
                f"{deadline_s:g} s: {_wants(spec)}: lower its num_cpus, num_gpus or replicas, "
                "change its node_labels, or add nodes"
            )


def _start(spec: Servable) -> Any:
    serving = spec.serving
    return (
        ray.remote(TeacherActor)
        .options(
            num_cpus=serving.num_cpus,
            num_gpus=serving.num_gpus,
            label_selector=serving.node_labels or None,
            max_restarts=-1,
            max_task_retries=0,  # retries stand in one place: the client
            scheduling_strategy="SPREAD",
        )
        .remote(spec.name, spec.folder, serving, spec.num_labels)
    )


def _wants(spec: Servable) -> str:
    """``teacher 'a' wants 1 × (4 CPU, 0 GPU, labels …); the cluster has 2 CPU … free 1 CPU``."""
    serving = spec.serving
    labels = f", labels {serving.node_labels}" if serving.node_labels else ""

    def amounts(resources: dict[str, float]) -> str:
        return f"{resources.get('CPU', 0):g} CPU and {resources.get('GPU', 0):g} GPU"

    nodes = [
        {k: v for k, v in node["Labels"].items() if not k.startswith("ray.io/")}
        for node in ray.nodes()
        if node["Alive"]
    ]
    has_labels = f", node labels {nodes}" if serving.node_labels else ""
    return (
        f"teacher {spec.name!r} wants {serving.replicas} × ({serving.num_cpus:g} CPU and "
        f"{serving.num_gpus:g} GPU{labels}); the cluster of {len(nodes)} nodes has "
        f"{amounts(ray.cluster_resources())}, {amounts(ray.available_resources())} free"
        f"{has_labels}"
    )


@dataclass
class _Replica:
    actor: Any
    in_flight: int = 0  # of this client alone
    ping: Any = None  # outstanding since the replica failed; None: it is believed to be up
    death: str | None = None  # why it will not come back


class RayTeacherClient:
    """One rank's client. Thread-safe; pickles without its counts."""

    def __init__(self, actors: dict[str, list[Any]], stream: Stream, rank: int) -> None:
        self._actors = actors
        self._stream = stream
        self._rank = rank
        self._lock = threading.Lock()
        self._replicas = {name: [_Replica(a) for a in group] for name, group in actors.items()}
        self._num_requests = dict.fromkeys(actors, 0)
        self._num_retries = dict.fromkeys(actors, 0)

    def __reduce__(self) -> tuple[Any, ...]:
        return RayTeacherClient, (self._actors, self._stream, self._rank)

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
        cause: Exception | None = None
        num_attempts = 0
        while num_attempts <= self._stream.retries:
            replica = self._take(teacher, cancelled)
            if isinstance(replica, str):
                message = self._gave_up(teacher, request, num_attempts, replica)
                raise TeacherError(message) from cause
            num_attempts += 1
            try:
                return self._answer(replica, request, cancelled, on_sent)
            except RayTaskError as error:
                raise _own(error, teacher) from None
            except _LOST as error:
                cause = error
                logger.warning("teacher %r: %s: asking again", teacher, _brief(error))
                with self._lock:
                    self._num_retries[teacher] += 1
                    if replica.ping is None:
                        replica.ping = replica.actor.ping.remote()
            finally:
                with self._lock:
                    replica.in_flight -= 1
        assert cause is not None
        message = self._gave_up(teacher, request, num_attempts, f"the last: {_brief(cause)}")
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
                return f"no replica came back within {self._stream.deadline_s:g} s"
            if cancelled is not None and cancelled.is_set():
                raise CancelledError
            time.sleep(_POLL_S)

    def _answer(
        self,
        replica: _Replica,
        request: TeacherRequest,
        cancelled: threading.Event | None,
        on_sent: Callable[[], None] | None,
    ) -> TeacherOutput:
        give_up = time.monotonic() + self._stream.deadline_s
        reference = replica.actor.answer.remote(request)
        if on_sent is not None:
            on_sent()
        while True:
            rest = give_up - time.monotonic()
            done, _ = ray.wait([reference], timeout=max(0.0, min(_POLL_S, rest)))
            if done:
                return ray.get(reference, timeout=max(1.0, rest))
            is_cancelled = cancelled is not None and cancelled.is_set()
            if is_cancelled or rest <= 0:
                ray.cancel(reference)  # takes it off the queue; what runs, runs to its end
                if is_cancelled:
                    raise CancelledError
                raise GetTimeoutError(f"no answer within {self._stream.deadline_s:g} s")

    def _gave_up(self, teacher: str, request: TeacherRequest, num_attempts: int, cause: str) -> str:
        return (
            f"teacher {teacher!r} did not answer request {request.request_id} in {num_attempts} "
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


def _own(error: RayTaskError, teacher: str) -> DistillError:
    """The exception that was raised inside the actor, as itself."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, DistillError):
        return cause
    return TeacherError(f"teacher {teacher!r} failed: {cause or error}")


def _brief(error: Exception) -> str:
    cause = getattr(error, "cause", None) or error
    first = str(cause).strip().splitlines()
    return f"{type(cause).__name__}: {first[0] if first else ''}"
