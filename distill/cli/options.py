"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[Path, typer.Argument(help="YAML file of the experiment.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Keys to set, as a.b=c.", show_default=False)
]
Address = Annotated[
    str | None,
    typer.Option(
        help="Ray cluster to run on: auto or host:port; sets cluster.address.", show_default=False
    ),
]
ExperimentName = Annotated[
    str,
    typer.Argument(
        metavar="EXPERIMENT", help="Name of the experiment in MLflow (tracking.experiment)."
    ),
]
Uri = Annotated[
    str | None,
    typer.Option(
        "--tracking-uri",
        help="MLflow store; default: $MLFLOW_TRACKING_URI, else sqlite:///mlflow.db.",
        show_default=False,
    ),
]
Partial = Annotated[bool, typer.Option("--partial", help="Report a sweep that is still running.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
