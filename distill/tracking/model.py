"""The exported student as an MLflow model, for ``mlflow.transformers`` and as a pyfunc: labels of
texts, or the text that a language model generates after them.

A student of features is no transformers pipeline: its folder is logged as artifacts, and is loaded
from there with ``AutoModelForSequenceClassification`` (see the README.md in it).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.tracking.store import import_mlflow

if TYPE_CHECKING:
    from mlflow import MlflowClient

_RUNS = "runs:/"
NEW_TOKENS = 64
"""Tokens that a language model generates as a pyfunc, unless a caller's ``params`` set another
number."""


def log_model(
    client: MlflowClient, uri: str, experiment_id: str, run_id: str, folder: Path, name: str
) -> str:
    """The model's URI (of a student of features: of its artifacts).

    Offline: nothing is requested from the hub, no requirements are inferred.
    """
    mlflow = import_mlflow()
    import transformers
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} is not a Hugging Face folder: it has no config.json")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config.get("num_features"):
        client.log_artifacts(run_id, str(folder), name)
        return f"{_RUNS}{run_id}/{name}"
    generates = any(name.endswith("ForCausalLM") for name in config.get("architectures") or ())
    task = "text-generation" if generates else "text-classification"
    with _no_bars():
        pipeline: Any = transformers.pipeline(task, model=str(folder), device="cpu")
    # MLflow requests from the hub the card and licence of name_or_path: this is no valid repository
    # name, so a folder called "student" is not taken for a public model of that name.
    pipeline.model.name_or_path = f"distill:{name}"
    label = ColSpec(DataType.string, "label")
    output = Schema(
        [ColSpec(DataType.string)] if generates else [label, ColSpec(DataType.double, "score")]
    )
    is_pair = config.get("distill", {}).get("is_pair", False)
    names = ("text", "text_pair") if is_pair else (None,)
    signature = ModelSignature(
        Schema([ColSpec(DataType.string, name) for name in names]),
        output,
    )
    model = client.create_logged_model(experiment_id, name=name, source_run_id=run_id)
    # Linked here: given the run, log_model would read its whole history, metric by metric.
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    with _tracking_uri(mlflow, uri), _no_bars():
        info = mlflow.transformers.log_model(
            pipeline,
            name=name,
            signature=signature,
            model_config={"max_new_tokens": NEW_TOKENS} if generates else {"truncation": True},
            pip_requirements=[f"{p}=={version(p)}" for p in ("mlflow", "transformers", "torch")],
            model_id=model.model_id,
        )
    return info.model_uri


def register_model(client: MlflowClient, uri: str, model_uri: str, name: str) -> str:
    """A logged model as the next version of a registered one; returns the version."""
    mlflow = import_mlflow()
    if model_uri.startswith(_RUNS):  # of features: mlflow.register_model takes its own models alone
        return _register_artifacts(client, model_uri, name)
    # It writes to stderr what the table will show.
    with _tracking_uri(mlflow, uri), contextlib.redirect_stderr(io.StringIO()):
        created = mlflow.register_model(model_uri, name, await_registration_for=0)
    return str(created.version)


def _register_artifacts(client: MlflowClient, model_uri: str, name: str) -> str:
    from mlflow.exceptions import MlflowException

    run_id, _, path = model_uri.removeprefix(_RUNS).partition("/")
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = f"{client.get_run(run_id).info.artifact_uri}/{path}"
    created = client.create_model_version(name, source, run_id, await_creation_for=0)
    return str(created.version)


@contextlib.contextmanager
def _tracking_uri(mlflow: Any, uri: str) -> Iterator[None]:
    """MLflow's process-wide URI for a block: log_model reads it from nowhere else.

    set_tracking_uri also writes the environment variable, and Ray workers started later would
    inherit it.
    """
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    """transformers' own progress bars would break distill's."""
    from transformers.utils import logging

    had_bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if had_bars:
            logging.enable_progress_bar()
