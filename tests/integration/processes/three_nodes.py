"""A head, a teacher node and a student node on one machine; prints as JSON what ran on which.

Run as a script, as ``python -m tests.integration.processes.three_nodes FOLDER``: a process has one
Ray, and the tests' own is another. Every node listens on 127.0.0.1 and asks for a token.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

# Before ray is imported: its core reads the environment once.
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
os.environ |= {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}  # one process fewer to start

ROLES = {"head": 0, "teacher": 1, "student": 3}
"""Logical CPUs of each node; the head's none: only the driver lives there."""

TRIAL = "ImplicitFunc"
"""Ray Tune's name for the actor that runs a trial."""


@contextmanager
def three_nodes() -> Iterator[str]:
    """The address of the cluster, for as long as the block runs."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(shutdown_at_exit=True)
    try:
        for role, num_cpus in ROLES.items():
            is_head = role == "head"
            cluster.add_node(
                num_cpus=num_cpus,
                labels={"role": role},
                node_ip_address="127.0.0.1",
                # The state API is answered by the dashboard.
                include_dashboard=is_head,
                dashboard_host="127.0.0.1",
                dashboard_port=0 if is_head else None,
            )
        yield cluster.address
    finally:
        cluster.shutdown()


def distill(*arguments: str) -> None:
    """A command of distill, in this process: it joins the cluster and leaves it."""
    from distill.cli import app

    code = app([*arguments], standalone_mode=False)
    assert not code, f"distill {' '.join(arguments)} ended with {code}"


def placement(address: str) -> dict[str, list[str]]:
    """Roles of the nodes on which each kind of actor and task of ours ran, dead ones included."""
    from ray.util.state import list_actors, list_nodes, list_tasks

    # With an address: another Ray of this machine may be newer.
    asked: dict[str, Any] = {"address": address, "detail": True, "limit": 1000}
    roles = {node.node_id: node.labels["role"] for node in list_nodes(**asked)}
    ran = [(actor.class_name, actor.node_id) for actor in list_actors(**asked)]
    tasks = list_tasks(**asked, filters=[("type", "=", "NORMAL_TASK")])
    ran += [(task.name, task.node_id) for task in tasks]
    return {name: sorted({str(roles.get(n)) for k, n in ran if k == name}) for name, _ in ran}


def settled(address: str) -> dict[str, list[str]]:
    """The placement once it has the trial: on a busy machine Ray reports actors late."""
    for _ in range(60):
        found = placement(address)
        if TRIAL in found:
            break
        time.sleep(1)
    return found


def experiment(root: Path) -> dict[str, Any]:
    """Two experts on the teacher node; a trial with a worker group of two ranks, and the baseline
    that it is compared with, on the student node."""
    from tests.toys import toy_experiment

    teacher, student = {"role": "teacher"}, {"role": "student"}
    raw = toy_experiment(root)
    raw["experts"] |= {
        "partition": {"type": "kmeans", "num_clusters": 2},
        "epochs": 1,
        "node_labels": teacher,
        "serving": {"num_cpus": 0.1, "node_labels": teacher},
        "router": None,  # one process fewer to start
    }
    raw["aggregation"] = {"type": "mean"}
    raw["trainer"] |= {"num_workers": 2, "epochs": 2, "node_labels": student}
    raw["baselines"] = [{"type": "labels_only", "name": "alone"}]
    raw["search"] = {"space": {"kd.temperature": {"type": "grid", "values": [3.0]}}}
    return raw


def main(root: Path) -> None:
    config = root / "cluster.yaml"
    config.write_text(yaml.safe_dump(experiment(root)))
    with three_nodes() as address:
        distill("sweep", str(config), f"output={root}/sweep", "--address", address)
        print(json.dumps(settled(address)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
