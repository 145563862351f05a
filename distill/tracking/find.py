"""Finding an experiment and its runs in MLflow, to read them."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from distill.config import Tracking
from distill.config.values import masked
from distill.errors import RecordError
from distill.tracking.store import check_reachable, import_mlflow, sqlite_path

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment as MlflowExperiment
    from mlflow.entities import Run

PARENT = "mlflow.parentRunId"
NUM_NAMED = 5


def connect(uri: str) -> MlflowClient:
    """A client. Creates no database: MLflow would, for a mistyped path."""
    path = sqlite_path(uri)
    if path is not None and not path.is_file():
        raise RecordError(
            f"{masked(uri)} does not exist: run this in the folder where distill ran, or give "
            "--tracking-uri (or $MLFLOW_TRACKING_URI)"
        )
    check_reachable(Tracking(uri=uri))
    return import_mlflow().MlflowClient(uri)


def find_experiment(client: MlflowClient, uri: str, name: str) -> MlflowExperiment:
    """Raises RecordError, with the names that come near, where there is none of this name."""
    experiment = client.get_experiment_by_name(name)
    if experiment is not None and experiment.lifecycle_stage == "active":
        return experiment
    names = [e.name for e in client.search_experiments() if e.name != "Default"]
    near = difflib.get_close_matches(name, names, NUM_NAMED, cutoff=0.5)
    if near:
        hint = f"did you mean {' or '.join(near)}?"
    elif names:
        more = f" and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else ""
        hint = f"there are {', '.join(names[:NUM_NAMED])}{more}"
    else:
        hint = "there is none yet; --tracking-uri (or $MLFLOW_TRACKING_URI) names another store"
    verb = "was deleted from" if experiment is not None else "does not exist in"
    raise RecordError(f"experiment {name} {verb} {masked(uri)}: {hint}")


def all_runs(client: MlflowClient, experiment_id: str) -> list[Run]:
    """Every run that is not deleted, newest first."""
    runs: list[Run] = []
    token = None
    while True:
        page = client.search_runs(
            [experiment_id],
            max_results=1000,
            order_by=["attributes.start_time DESC"],
            page_token=token,
        )
        runs += page
        token = page.token
        if not token:
            return runs
