"""Joining a Ray cluster, or starting one on this machine that nobody else can reach."""

import logging
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from distill.config import Cluster
from distill.errors import ConfigError, UnreachableError

CONNECT_TIMEOUT_S = 10.0
SPIN = "GOMP_SPINCOUNT"
"""Ignores OMP_WAIT_POLICY, so it is not set where the user has set that."""
LOCAL_ENVIRONMENT = {
    # What carries tensors past the object store (stream.transport: nixl) would listen on every
    # interface.
    "UCX_NET_DEVICES": "lo",
    # Ray Train's actor that looks for nodes about to be taken away, seconds of a worker group's
    # start: the only node of a local cluster is this machine.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # Threads of torch that wait for the next operation sleep after some 40 µs, which most gaps
    # between operations are shorter than. They would otherwise spin for milliseconds, on CPUs that
    # teachers, ranks and the threads of the stream need; waking a thread takes as long as a small
    # operation.
    SPIN: "2000",
}
"""Environment variables for as long as a local cluster runs, where the user has not set them."""


@contextmanager
def connect(cluster: Cluster, *, log_to_driver: bool = False) -> Iterator[None]:
    """Ray, for as long as the block runs; UnreachableError when the address does not answer,
    or when a local cluster does not start.

    A Ray that this process already has is used, and left running. A local cluster listens on
    127.0.0.1 alone, requires a token that only this process and its children have, and writes
    nothing into the home folder. ``log_to_driver`` prints what the workers print.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ranks stay in the driver's folder: relative paths of the configuration mean the same there.
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    if _is_running():
        yield
        return
    is_local = cluster.address is None
    own = own_environment(os.environ) if is_local else {}
    os.environ.update(own)
    if cluster.address is None:
        _start_local(cluster.num_cpus, log_to_driver)
    else:
        _join(cluster.address, log_to_driver)
    import ray

    try:
        yield
    finally:
        ray.shutdown()
        for name in own:
            os.environ.pop(name, None)


def own_environment(given: Mapping[str, str]) -> dict[str, str]:
    """What a local cluster adds to the user's environment."""
    own = {k: v for k, v in LOCAL_ENVIRONMENT.items() if k not in given}
    if "OMP_WAIT_POLICY" in given:
        own.pop(SPIN, None)
    return own


def check_address(cluster: Cluster) -> None:
    """Raise UnreachableError if a cluster is named that does not answer; joins and starts none."""
    if cluster.address is not None and not _is_running():
        try:
            _probe(cluster.address)
        except (OSError, RuntimeError, ValueError) as error:
            raise _unreachable(cluster.address, error) from error


def _is_running() -> bool:
    return "ray" in sys.modules and sys.modules["ray"].is_initialized()


def _start_local(num_cpus: float | None, log_to_driver: bool) -> None:
    # Left to itself, Ray would write a token under the home folder.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if os.environ["RAY_AUTH_MODE"] == "token" and "RAY_AUTH_TOKEN_PATH" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray
    from ray._private import ray_constants
    from ray._raylet import Config  # pyright: ignore[reportAttributeAccessIssue]

    # Ray's core has read the environment when it was first imported, perhaps before this.
    Config.initialize("")
    # Ray replaces 127.0.0.1 by the machine's outer address, and its services then listen on all
    # interfaces, unless it believes that no other machine can join (as on a Mac).
    ray_constants.ENABLE_RAY_CLUSTER = False
    for attempts_left in (2, 1, 0):
        try:
            ray.init(
                address="local",
                num_cpus=None if num_cpus is None else max(1, int(num_cpus)),
                include_dashboard=False,  # ten processes that nothing here needs
                logging_level=logging.WARNING,
                log_to_driver=log_to_driver,
            )
            return
        except Exception as error:  # a bare one, when a process is slower to start than 30 s
            ray.shutdown()
            if attempts_left == 0:
                raise UnreachableError(
                    f"a local Ray cluster did not start: {error} Free memory, processors or disk "
                    "on this machine and run again, or name a running cluster in cluster.address"
                ) from error


def _join(address: str, log_to_driver: bool) -> None:
    import ray
    from ray.exceptions import RayError

    try:
        _probe(address)
        ray.init(address=address, logging_level=logging.WARNING, log_to_driver=log_to_driver)
    except (RayError, OSError, RuntimeError, ValueError) as error:
        ray.shutdown()
        raise _unreachable(address, error) from error


def _unreachable(address: str, error: Exception) -> UnreachableError:
    return UnreachableError(
        f"cluster.address {address!r} cannot be used: {error}: start a cluster there "
        "(`ray start --head`), correct the address, or leave it out to start a local one"
    )


def _probe(address: str) -> None:
    """Raise ConnectionError unless gRPC answers: ``ray.init`` would end this whole process."""
    import grpc
    from ray._private import services
    from ray._private.grpc_utils import init_grpc_channel

    host = services.canonicalize_bootstrap_address(address) or address
    channel: Any = init_grpc_channel(host)
    try:
        grpc.channel_ready_future(channel).result(timeout=CONNECT_TIMEOUT_S)
    except grpc.FutureTimeoutError:
        raise ConnectionError(f"no response from {host} in {CONNECT_TIMEOUT_S:g} s") from None
    finally:
        channel.close()


def check_room(
    cluster: Cluster, num_cpus: float, num_gpus: float, say: Callable[[str], None]
) -> None:
    """Compare the resources that run at once with those that Ray has.

    A cluster that is joined may grow, so there it is only printed. Raises ConfigError otherwise.
    """
    import ray

    have = ray.cluster_resources()
    for kind, needed in (("CPU", num_cpus), ("GPU", num_gpus)):
        if needed > have.get(kind, 0.0) + 1e-6:
            need = f"teachers and student need {needed:g} {kind}s, Ray has {have.get(kind, 0.0):g}"
            if cluster.address is None:
                raise ConfigError(f"{need}: lower num_cpus, num_gpus, replicas or num_workers")
            say(f"{need}: waiting for the cluster to grow")
