"""How requests and answers travel between a rank and a replica (``stream.transport``)."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, ClassVar

from distill.config import Transport as TransportName
from distill.records import DeviceOutput, RequestFor
from distill.teachers.requests import TeacherRequest
from distill.wires.base import on_host


class ObjectStore:
    """Ray's shared memory."""

    name: ClassVar[TransportName] = "object_store"
    package: ClassVar[str | None] = None
    """What must be installed on both sides, apart from Ray."""
    joins_requests: ClassVar[bool] = True
    """Whether a replica may compute requests of several ranks together."""
    actor_options: ClassVar[Mapping[str, Any]] = {}
    """Of Ray's, for a replica."""

    def prepare_replica(self, who: str) -> None:
        """In a teacher's process, before it takes requests; raises TeacherError."""

    def prepare_client(self) -> None:
        """In a rank's process, before it sends requests."""

    def send(self, actor: Any, teacher: str, request: RequestFor[Any], claim: str) -> Any:
        """The reference of the response."""
        return actor.call.remote(teacher, request, claim)

    def fetch(self, reference: Any, timeout_s: float, cancelled: threading.Event | None) -> Any:
        """A finished response; raises what Ray does, or CancelledError."""
        import ray

        return ray.get(reference, timeout=timeout_s)


class Nixl(ObjectStore):
    """Outputs by Ray Direct Transport, past the object store; see direct.py."""

    name = "nixl"
    package = "nixl"
    joins_requests = False
    # nixl's agent is for one thread: its requests wait in Ray's queue.
    actor_options: ClassVar[Mapping[str, Any]] = {
        "max_concurrency": 1,
        "enable_tensor_transport": True,
    }

    def prepare_replica(self, who: str) -> None:
        from distill.teachers import direct

        direct.check_installed(who)
        direct.prepare()

    def prepare_client(self) -> None:
        from distill.teachers import direct

        direct.prepare()

    def send(self, actor: Any, teacher: str, request: RequestFor[Any], claim: str) -> Any:
        from distill.teachers import direct

        if isinstance(request, TeacherRequest):
            return direct.send(actor, teacher, request, claim)
        return super().send(actor, teacher, request, claim)

    def fetch(self, reference: Any, timeout_s: float, cancelled: threading.Event | None) -> Any:
        from distill.teachers import direct

        response = direct.fetch(reference, timeout_s, cancelled)
        return on_host(response) if isinstance(response, DeviceOutput) else response


Transport = ObjectStore
TRANSPORTS: Mapping[str, Transport] = {one.name: one for one in (ObjectStore(), Nixl())}
