import pytest


@pytest.fixture(scope="session")
def ray_cluster():
    """One local Ray for the whole session: 8 logical CPUs, on 127.0.0.1."""
    from distill.cluster import connect
    from distill.config import Cluster

    with connect(Cluster(num_cpus=8)):
        yield
