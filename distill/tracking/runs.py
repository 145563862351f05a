"""Starting a run, or finding the one that a resumed training continues."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from distill.config import Tracking
from distill.tracking.store import sqlite_path

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

DEFAULT_EXPERIMENT = "distill"
ENDED = "distill.ended"
"""Tag with the reason why a run ended."""
logger = logging.getLogger(__name__)


def start_run(client: MlflowClient, uri: str, tracking: Tracking, output: Path, began: int) -> Run:
    """A new run, with MLflow's usual tags: user, source, git commit. ``began``: when, in
    milliseconds since 1970."""
    from mlflow.tracking.context.registry import resolve_tags

    experiment_id = _experiment(client, uri, tracking.experiment or DEFAULT_EXPERIMENT)
    run_name = tracking.run_name or output.absolute().name
    return client.create_run(experiment_id, began, tags=resolve_tags(), run_name=run_name)


def resume_run(client: MlflowClient, id_file: Path) -> Run | None:
    """The run named in ``id_file``, running again; None where there is none to continue."""
    from mlflow.exceptions import MlflowException

    try:
        run_id = id_file.read_text(encoding="utf-8").strip()
        run = client.get_run(run_id)
    except FileNotFoundError:
        return None
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        logger.warning(
            "the MLflow run named in %s does not exist any more: starting a new one", id_file
        )
        return None
    if run.info.lifecycle_stage == "deleted":
        logger.warning("the MLflow run %s was deleted: starting a new one", run_id)
        return None
    client.update_run(run_id, status="RUNNING")
    if ENDED in run.data.tags:
        client.delete_tag(run_id, ENDED)
    return run


def _experiment(client: MlflowClient, uri: str, name: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        path = sqlite_path(uri)
        # Next to the database, wherever the command was started.
        location = (path.parent / "mlartifacts").as_uri() if path else None
        try:
            return client.create_experiment(name, artifact_location=location)
        except MlflowException:  # another process was faster
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        raise ValueError(
            f"tracking.experiment {name!r} was deleted: choose another name, or restore it "
            f"with mlflow experiments restore --experiment-id {found.experiment_id}"
        )
    return found.experiment_id
