"""What the tests on real Ray share.

Every process that loads a model imports for three to four seconds, so processes are what a test
costs: about 14 s of CPU time for a worker group of one rank, 4 s for each teacher. Use
``ray_cluster``; train once for a module and let several tests look at the result; ask one pool of
teachers several things before it is closed; give a teacher ``num_cpus`` 0.1 and a sweep
``max_concurrent`` 1.

All of this folder runs in one process, on one cluster. Tests that start a Ray or ranks of their own
belong in ``processes/``, which another process runs meanwhile.
"""

import os

import pytest

NUM_CPUS = 2
"""Logical ones. As many tasks run at once, each worker several after another; an actor never takes
over the worker of a task."""

# Ray reads these when it starts, here or in a process that a test starts.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")  # of a worker group: 2 s
# On a busy machine a worker imports for longer than a minute, and would be started again.
os.environ.setdefault("RAY_worker_register_timeout_seconds", "600")


@pytest.fixture(scope="session")
def ray_cluster():
    """One local Ray for the whole session, on 127.0.0.1."""
    from distill.cluster.connect import connect
    from distill.config import Cluster

    with connect(Cluster(num_cpus=NUM_CPUS)):
        yield
