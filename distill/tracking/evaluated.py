"""An evaluation as a run in MLflow."""

from __future__ import annotations

from pathlib import Path

from distill.config import Tracking
from distill.evaluation.standalone import Evaluated
from distill.tracking.store import check_reachable
from distill.tracking.tracker import Tracker


def record(evaluated: Evaluated, folder: Path, experiment: str, uri: str | None) -> str:
    """Metrics, settings and all files of ``folder``; returns the command that opens MLflow.

    The same folder again continues its run.
    """
    tracking = Tracking(experiment=experiment, uri=uri, run_name=folder.name, system_metrics=False)
    check_reachable(tracking)
    request = evaluated.request
    with Tracker(tracking, folder) as tracker:
        told = {
            "student": str(request.student),
            "teachers": ", ".join(request.teachers),
            "data": request.source.path,
        }
        tracker.params(told | request.settings.model_dump(mode="json"))
        tracker.metrics(evaluated.metrics, 0)
        tracker.artifact(folder, "evaluation")
        tracker.tags({"role": "evaluation"})
        return tracker.open_command
