"""One MLflow store for the tests that read experiments."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from sweep_runs import write_demo

from distill.tracking.read import Record, read_experiment
from distill.tracking.store import import_mlflow


@pytest.fixture(scope="session")
def store_uri(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> str:
    path = tmp_path_factory.mktemp("experiments") / "mlflow.db"
    shutil.copy(empty_store, path)
    return f"sqlite:///{path}"


@pytest.fixture(scope="session")
def client(store_uri: str) -> Any:
    return import_mlflow().MlflowClient(store_uri)


@pytest.fixture(scope="session")
def students(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the demo's students lie."""
    return tmp_path_factory.mktemp("students")


@pytest.fixture(scope="session")
def demo(client: Any, students: Path) -> str:
    """The experiment's name: a sweep of 30 trials, 25 finished, 3 stopped, 2 failed."""
    write_demo(client, "sentiment", students=students)
    return "sentiment"


@pytest.fixture(scope="session")
def record(store_uri: str, demo: str) -> Record:
    return read_experiment(store_uri, demo)
