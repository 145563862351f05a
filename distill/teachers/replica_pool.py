"""Teachers as Ray actors. The driver makes the pool; each student rank asks through a client."""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from distill.config import Stream
from distill.errors import TeacherError
from distill.teachers.actor import CONTROL, MAX_CALLS, TeacherActor
from distill.teachers.ray_client import RayTeacherClient, Served, control, own_error
from distill.teachers.served import ServedTeacher, groups, named
from distill.teachers.transports import TRANSPORTS, ObjectStore, Transport
from distill.wording import counted

logger = logging.getLogger(__name__)


class RayTeacherPool:
    """``serving.replicas`` actors for each teacher, or for adapters that share a base; gone when
    closed. Also a context manager."""

    def __init__(
        self,
        specs: Sequence[ServedTeacher],
        start_deadline_s: float = 300.0,
        transport: str = "object_store",
        at_once: int = 1,
    ) -> None:
        """Returns when every replica has loaded its model. ``transport``: of its clients' streams.
        ``at_once``: see TeacherActor.

        Raises the loading error of a teacher as itself, or TeacherError at the deadline, with
        what it needs and what the cluster has. Nothing is left running then.
        """
        self._served: list[Served] = []
        self._transport = TRANSPORTS[transport]
        try:
            together = groups(specs)
            for group in together:
                actors = [
                    _start(group, self._transport, at_once)
                    for _ in range(group[0].serving.replicas)
                ]
                self._served.append(Served(tuple(spec.name for spec in group), actors))
            give_up = time.monotonic() + start_deadline_s
            for group, served in zip(together, self._served, strict=True):
                _wait_until_ready(group, served.actors, give_up, start_deadline_s)
        except BaseException:
            self.close()
            raise

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for served in self._served for name in served.names)

    def client(self, stream: Stream, rank: int = 0) -> RayTeacherClient:
        """For one student rank; may be sent to its process. Any pool has the object store."""
        own = self._transport.name
        if stream.transport not in (ObjectStore.name, own):
            raise ValueError(f"stream.transport {stream.transport}: the pool has {own}")
        return RayTeacherClient(self._served, stream, rank)

    def pids(self, teacher: str) -> list[int]:
        """Of the replicas' processes, for tests that kill one."""
        actors = next(served.actors for served in self._served if teacher in served.names)
        return ray.get([control(actor.pid).remote() for actor in actors])

    def close(self) -> None:
        for served in self._served:
            for actor in served.actors:
                if ray.is_initialized():
                    ray.kill(actor, no_restart=True)
        self._served = []

    def __enter__(self) -> "RayTeacherPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _wait_until_ready(
    group: Sequence[ServedTeacher], actors: list[Any], give_up: float, deadline_s: float
) -> None:
    pings = [control(actor.ping).remote() for actor in actors]
    patience = max(0.0, min(15.0, give_up - time.monotonic()))
    ready, _ = ray.wait(pings, num_returns=len(pings), timeout=patience)
    if len(ready) < len(pings):
        # Logged early: on a cluster that cannot grow, waiting longer will not help.
        logger.warning("still loading its model, or waiting for resources: %s", _wants(group))
        rest = max(0.0, give_up - time.monotonic())
        ready, _ = ray.wait(pings, num_returns=len(pings), timeout=rest)
    for ping in ready:
        try:
            ray.get(ping)
        except RayTaskError as error:
            raise own_error(error, named(group)) from None
        except RayError as error:
            message = f"{named(group)}: lost while starting: {error}"
            raise TeacherError(message) from error
    if len(ready) < len(pings):
        raise TeacherError(
            f"{len(pings) - len(ready)} of {len(pings)} replicas did not start within "
            f"{deadline_s:g} s: {_wants(group)}: lower its num_cpus, num_gpus or replicas, "
            "change its node_labels, or add nodes"
        )


def _start(group: Sequence[ServedTeacher], transport: Transport, at_once: int) -> Any:
    serving = group[0].serving
    remote: Any = ray.remote  # whose types lack the last of these, and options() does not heed it
    options: dict[str, Any] = {
        "num_cpus": serving.cpus,
        "num_gpus": serving.num_gpus,
        "label_selector": serving.node_labels or None,
        "max_restarts": -1,  # Ray restarts a replica that died, as often as it dies
        "max_task_retries": 0,  # retries are in one place: the client
        "max_concurrency": MAX_CALLS,  # see TeacherActor
        "concurrency_groups": {CONTROL: 1},
        "scheduling_strategy": "SPREAD",
        "enable_tensor_transport": False,
    }
    actor = remote(**options | dict(transport.actor_options))
    return actor(TeacherActor).remote(group, transport, at_once)


def _wants(group: Sequence[ServedTeacher]) -> str:
    """``teacher 'a' needs 1 × (4 CPU, 0 GPU, labels …); the cluster has 2 CPU … free 1 CPU``."""
    serving = group[0].serving
    labels = f", labels {serving.node_labels}" if serving.node_labels else ""

    def amounts(resources: Mapping[str, float]) -> str:
        return f"{resources.get('CPU', 0):g} CPU and {resources.get('GPU', 0):g} GPU"

    nodes = [
        {k: v for k, v in node["Labels"].items() if not k.startswith("ray.io/")}
        for node in ray.nodes()
        if node["Alive"]
    ]
    has_labels = f", node labels {nodes}" if serving.node_labels else ""
    wants = "needs" if len(group) == 1 else "need"
    return (
        f"{named(group)} {wants} {serving.replicas} × ({serving.cpus:g} CPU and "
        f"{serving.num_gpus:g} GPU{labels}); the cluster of {counted(len(nodes), 'node')} has "
        f"{amounts(ray.cluster_resources())}, {amounts(ray.available_resources())} free"
        f"{has_labels}"
    )
