from pathlib import Path

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """With pytest-xdist all that need the cluster go to one process, which has it once."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("ray"))


@pytest.fixture(scope="session")
def ray_cluster():
    """One local Ray for the whole session: 8 logical CPUs, on 127.0.0.1."""
    from distill.cluster import connect
    from distill.config import Cluster

    with connect(Cluster(num_cpus=8)):
        yield
