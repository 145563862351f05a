"""The section ``tracking``: what is logged to MLflow."""

from __future__ import annotations

from distill.variant import Section


class Tracking(Section):
    """What is logged to MLflow, and where."""

    experiment: str | None = None
    """MLflow experiment; null: the name of the configuration file."""
    run_name: str | None = None
    """Name of the run in MLflow; null: MLflow chooses one."""
    uri: str | None = None
    """MLflow store; null: $MLFLOW_TRACKING_URI, else sqlite:///mlflow.db in the working
    folder."""
    system_metrics: bool = True
    """Log use of CPU, memory, disk and network."""
    log_model: bool = True
    """Log the exported student as an MLflow model."""
