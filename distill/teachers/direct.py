"""Answers past Ray's object store: all that is peculiar to Ray Direct Transport with nixl.

What is written here about Ray is true of the version that requirements.in pins.
"""

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, cast

import ray
from ray.exceptions import GetTimeoutError, ObjectFetchTimedOutError, RayDirectTransportError

from distill.errors import TeacherError
from distill.teachers.requests import TeacherRequest

POLL_S = 0.2  # how soon a cancelled request, or a replica that is back, is noticed
PROGRESS_US = 1000  # of nixl, between two looks for work that no event has told of
_FETCHING = threading.Lock()  # of the process: nixl's agent is for one thread at a time


def check_installed(who: str) -> None:
    """In a teacher's process, before it takes requests."""
    if find_spec("nixl") is None:
        raise TeacherError(
            f"{who}: stream.transport nixl needs the package nixl, which is not installed on the "
            "node of this teacher: pip install nixl there, or use object_store"
        )


def prepare() -> None:
    """In a process that asks or answers, before it does."""
    from nixl import _api
    from ray.experimental.rdt import nixl_tensor_transport

    # Left to itself an agent's thread asks without a pause whether there is work: a core for each
    # process, idle or not. With a pause the operating system wakes it when there is.
    bindings = cast(Any, _api).nixlBind
    if not isinstance(bindings.nixlAgent, _Agents):
        _replace(bindings, "nixlAgent", _Agents(bindings.nixlAgent))
    # Ray keeps what it knows of an actor's agent by the actor's name, which a restarted replica has
    # too, and would then never read from that one again. The variable that it takes the number from
    # is read when Ray is imported: in a worker, before this.
    _replace(nixl_tensor_transport, "NIXL_REMOTE_AGENT_CACHE_MAXSIZE", 0)
    # Before each call Ray asks the actor whether it has nixl, without a deadline. Ours have it.
    transport = nixl_tensor_transport.NixlTensorTransport
    _replace(transport, "actor_has_tensor_transport", lambda self, actor: True)


@dataclass
class _Agents:
    """nixl's own, with a pause that its Python interface does not offer."""

    made: Callable[[str, Any], Any]

    def __call__(self, name: str, config: Any) -> Any:
        config.pthrDelay = PROGRESS_US
        return self.made(name, config)


def _replace(owner: Any, name: str, value: Any) -> None:
    assert hasattr(owner, name), f"Ray {ray.__version__} is not the pinned one"
    setattr(owner, name, value)


def send(actor: Any, teacher: str, request: TeacherRequest, claim: str) -> Any:
    """Returns the reference of a DeviceOutput, which :func:`fetch` brings."""
    from ray.experimental import set_target_device_for_ref

    method = actor.call_on_device.options(tensor_transport="nixl")
    reference = method.remote(teacher, request, claim)
    # Wherever the teacher has it: the stream's buffers, and its cache, are the host's.
    set_target_device_for_ref(reference, "cpu")
    return reference


def fetch(reference: Any, timeout_s: float, cancelled: threading.Event | None) -> Any:
    """Of a finished response; ``timeout_s``: from when no other thread fetches.

    Raises RayDirectTransportError, which may mean that its replica has died since, or
    CancelledError.
    """
    while not _FETCHING.acquire(timeout=POLL_S):
        if cancelled is not None and cancelled.is_set():
            raise CancelledError
    try:
        try:
            return ray.get(reference, timeout=timeout_s)
        except (RayDirectTransportError, GetTimeoutError, ObjectFetchTimedOutError) as error:
            failure = str(error).strip().splitlines()[-1]
        # By here the error's frames are gone, and with them, still under the lock, what is left of
        # the transfer: as garbage it would be taken down by whichever thread collects it.
        raise RayDirectTransportError(failure)
    finally:
        _FETCHING.release()
