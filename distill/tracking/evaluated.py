"""An evaluation as a run in MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from distill.config import Tracking
from distill.config.values import masked
from distill.evaluation.evaluated import Evaluated
from distill.tracking.store import check_reachable
from distill.tracking.tracker import Tracker


def check_store(folder: Path, experiment: str, uri: str | None) -> None:
    """Raises UnreachableError before anything is computed."""
    check_reachable(_tracking(folder, experiment, uri))


def record(
    evaluated: Evaluated, files: Sequence[Path], folder: Path, experiment: str, uri: str | None
) -> str:
    """Logs metrics, settings and ``files`` as a new run; returns the command that opens MLflow."""
    (folder / "mlflow_run_id").unlink(missing_ok=True)  # that of an earlier evaluation ended
    request = evaluated.request
    with Tracker(_tracking(folder, experiment, uri), folder) as tracker:
        inputs = {
            "student": str(request.student),
            "teachers": masked(", ".join(request.teachers)),
            "data": masked(request.source.path),
        }
        tracker.params(inputs | request.settings.model_dump(mode="json"))
        tracker.metrics(evaluated.metrics, 0)
        for file in files:
            tracker.artifact(file, "evaluation")
        tracker.tags({"role": "evaluation"})
        return tracker.open_command


def _tracking(folder: Path, experiment: str, uri: str | None) -> Tracking:
    return Tracking(experiment=experiment, uri=uri, run_name=folder.name, system_metrics=False)
