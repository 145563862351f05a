"""Where MLflow keeps its runs: the URI, whether it answers, and how to open it."""

import contextlib
import logging
import os
import re
import shlex
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distill.config import Tracking
from distill.errors import UnreachableError
from distill.tracking.values import cut, masked

DEFAULT_URI = "sqlite:///mlflow.db"
CHECK_S = 10.0
"""Longest wait for a server in :func:`check_reachable`."""

_SQLITE = "sqlite:///"
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
# MLflow's own 7 retries with back-off hold the driver for minutes; the outbox retries anyway.


def import_mlflow() -> Any:
    """mlflow, without telemetry, log lines of its own, or run links on stdout."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    import mlflow

    # Migrations, retries and the monitor report here; failures reach the user through the outbox.
    for name in ("mlflow", "alembic", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return mlflow


def resolve_uri(tracking: Tracking) -> str:
    """The configured URI, else $MLFLOW_TRACKING_URI, else SQLite in the working folder."""
    uri = tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    path = sqlite_path(uri)
    if path is None:
        return uri
    _, question, query = uri.partition("?")
    return f"{_SQLITE}{path}{question}{query}"  # absolute: the folder may change, the run may not


def sqlite_path(uri: str) -> Path | None:
    """The absolute path of a SQLite database, None for any other store."""
    if not uri.startswith(_SQLITE):
        return None
    path = uri.removeprefix(_SQLITE).partition("?")[0]
    return Path(path).absolute() if path and path != ":memory:" else None


def open_command(uri: str) -> str:
    """The line that opens the UI, or the address of a server that already serves one."""
    if uri.startswith(("http://", "https://")):
        return masked(uri)
    return f"mlflow ui --backend-store-uri {shlex.quote(masked(uri))} --host 127.0.0.1"


def reason_of(error: BaseException) -> str:
    """One line about an error, without credentials."""
    if refused := re.search(r"\[Errno -?\d+\] ([\w ]+)", str(error)):
        return refused[1]  # what requests buries under its pools and retries
    lines = str(error).strip().splitlines()
    return cut(masked(lines[0] if lines else type(error).__name__), 300)


def check_reachable(tracking: Tracking, timeout_s: float = CHECK_S) -> None:
    """UnreachableError, within seconds, where no run could be recorded. Creates nothing."""
    uri = resolve_uri(tracking)
    path = sqlite_path(uri)
    if path is not None:
        _check_sqlite(path, min(timeout_s, 5))
        return
    if uri.startswith("sqlite:") or "://" not in uri or uri.startswith("file:"):
        raise _unreachable(uri, "not a store that MLflow can share between processes")
    _check_store(uri, timeout_s)


def _check_sqlite(path: Path, timeout_s: float) -> None:
    uri = f"{_SQLITE}{path}"
    if path.exists():
        try:
            with contextlib.closing(sqlite3.connect(path, timeout=timeout_s)) as connection:
                connection.execute("BEGIN IMMEDIATE")  # takes the write lock, changes nothing
                connection.rollback()
        except sqlite3.Error as error:
            raise _unreachable(uri, f"{path} cannot be written: {error}") from None
        return
    folder = next(parent for parent in path.parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise _unreachable(uri, f"{folder} is not a folder that can be written to")


def _check_store(uri: str, timeout_s: float) -> None:
    failures: list[Exception] = []

    def ask() -> None:
        try:
            with _impatient():
                import_mlflow().MlflowClient(uri).search_experiments(max_results=1)
        except Exception as error:
            failures.append(error)

    # A thread, because a name server or a proxy may sit out every timeout that requests knows of.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(timeout_s)
    if asking.is_alive():
        raise _unreachable(uri, f"no answer in {timeout_s:g} s")
    if failures:
        raise _unreachable(uri, reason_of(failures[0]))


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    """One attempt of a few seconds instead of MLflow's retries."""
    quick = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "8"}
    with environment(quick):
        yield


@contextlib.contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Environment variables for the duration of a block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _unreachable(uri: str, reason: str) -> UnreachableError:
    return UnreachableError(
        f"tracking.uri {masked(uri)} is not usable: {reason}. Start the server, correct "
        f"tracking.uri (or $MLFLOW_TRACKING_URI), or use {DEFAULT_URI}"
    )
