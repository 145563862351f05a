import fcntl
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Before torch is imported: threads that spin for the next operation take the CPU that another test
# process needs.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Hypothesis would fail an example that takes longer than 0.2 s, or is generated slowly.
settings.register_profile("slow", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("slow")

ORDER = {"cluster": 0, "processes": 2}
"""Of scopes; what is not named stands between."""


def scope_of(nodeid: str) -> str:
    """The tests that one process runs together: all on the session's Ray, all that start Rays or
    ranks of their own, or those of one file."""
    file = nodeid.split("::")[0]
    if file.startswith("tests/integration/processes/"):
        return "processes"
    return "cluster" if file.startswith("tests/integration/") else file


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: ORDER.get(scope_of(item.nodeid), 1))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With pytest-xdist one process begins with all that need the cluster, which is then started
    once; the other takes the rest file by file, and last what starts processes of its own."""
    from xdist.scheduler import LoadScopeScheduling

    class OneCluster(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return scope_of(nodeid)

    config.option.loadscopereorder = False  # in the order above, not the largest first
    return OneCluster(config, log)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new MLflow database, to be copied: created once for all processes, as it takes seconds."""
    root = tmp_path_factory.getbasetemp()
    path = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "empty-mlflow.db"
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            from distill.tracking.store import import_mlflow

            new = path.with_suffix(".new")
            import_mlflow().MlflowClient(f"sqlite:///{new}").search_experiments()
            new.rename(path)
    return path
