"""The MLflow store: its URI, whether it is reachable, and how to open it."""

import contextlib
import logging
import os
import re
import shlex
import shutil
import socket
import sqlite3
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from distill.config import Tracking
from distill.config.values import cut, masked, without_user
from distill.errors import UnreachableError
from distill.tracking.view import compare_link, runs_link

DEFAULT_URI = "sqlite:///mlflow.db"
CHECK_S = 10.0
"""Longest wait for a server in :func:`check_reachable`."""

HOST = "127.0.0.1"
FIRST_PORT = 5000
PORTS = 100
"""How many ports are tried."""
_HOST = re.compile(r"[\w.:-]+")
_SQLITE = "sqlite:///"
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
# MLflow's own 7 retries with back-off block the driver for minutes; the outbox retries anyway.


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


def open_command(uri: str, experiment_id: str = "", port: int | None = None) -> str:
    """How to open MLflow, a line each: the command that starts a server for a database, then the
    links to the experiment's runs, as a table and as charts.

    ``port``: of the server to start; None: the first free one from FIRST_PORT.
    """
    lines = []
    if uri.startswith(("http://", "https://")):
        server = without_user(uri).rstrip("/")
    else:
        port = free_port() if port is None else port
        server = f"http://{HOST}:{port}"
        store = shlex.quote(masked(uri))
        lines = [f"{_mlflow()} server --backend-store-uri {store} --host {HOST} --port {port}"]
    if not experiment_id:
        return "\n".join([*lines, server])
    return "\n".join(
        [*lines, runs_link(server, experiment_id), compare_link(server, experiment_id)]
    )


def _mlflow() -> str:
    """The command ``mlflow`` of this environment, whether or not it is active."""
    found = shutil.which("mlflow")
    own = Path(sys.executable).with_name("mlflow")
    if found is not None and (Path(found).samefile(own) if own.exists() else True):
        return "mlflow"
    return shlex.quote(str(own)) if own.exists() else f"{shlex.quote(sys.executable)} -m mlflow"


def free_port(first: int = FIRST_PORT) -> int:
    """The first port of this machine, from ``first``, on which nothing listens."""
    for port in range(first, first + PORTS):
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                listener.bind((HOST, port))
                return port
    return first


def reason_of(error: BaseException) -> str:
    """One line about an error, without credentials."""
    if refused := re.search(r"\[Errno -?\d+\] ([\w ]+)", str(error)):
        return refused[1]  # what requests buries under its pools and retries
    lines = str(error).strip().splitlines()
    return cut(masked(lines[0] if lines else type(error).__name__), 300)


def is_refusal(error: Exception) -> bool:
    """Whether the store would refuse the same record again, rather than being out of reach."""
    from mlflow.exceptions import InvalidUrlException, MlflowException
    from sqlalchemy.exc import OperationalError

    if isinstance(error, MlflowException):
        status = error.get_http_status_code()
        is_clients = 400 <= status < 500 and status != 429
        return is_clients or isinstance(error, InvalidUrlException)
    if isinstance(error, OperationalError):  # of a database server that does not respond
        return False
    return not isinstance(error, OSError) or isinstance(error, FileNotFoundError)


def check_reachable(tracking: Tracking, timeout_s: float = CHECK_S) -> None:
    """UnreachableError, within seconds, where no run could be recorded now. Creates nothing."""
    if (reason := silence_of(tracking, timeout_s)) is not None:
        raise _unreachable(resolve_uri(tracking), reason)


def silence_of(tracking: Tracking, timeout_s: float = CHECK_S) -> str | None:
    """Why the server does not respond, within seconds; None if it does. Creates nothing.

    UnreachableError where waiting does not help: the address cannot be right, the database cannot
    be written, or the server refuses.
    """
    uri = resolve_uri(tracking)
    path = sqlite_path(uri)
    if path is not None:
        _check_sqlite(path, min(timeout_s, 5))
        return None
    if uri.startswith("sqlite:") or "://" not in uri or uri.startswith("file:"):
        raise _unreachable(uri, "not a store that MLflow can share between processes")
    if uri.startswith(("http://", "https://")) and not _HOST.fullmatch(
        urlsplit(uri).hostname or ""
    ):
        raise _unreachable(uri, "its host is not a name or an address")
    return _silence_of(uri, timeout_s)


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


def _silence_of(uri: str, timeout_s: float) -> str | None:
    failures: list[Exception] = []

    def connect() -> None:
        try:
            with impatient():
                import_mlflow().MlflowClient(uri).search_experiments(max_results=1)
        except Exception as error:
            failures.append(error)

    # A thread, because a name server or a proxy may block longer than every timeout of requests.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        return f"no response in {timeout_s:g} s"
    if not failures:
        return None
    if is_refusal(failures[0]):
        raise _unreachable(uri, reason_of(failures[0]))
    return reason_of(failures[0])


@contextlib.contextmanager
def impatient() -> Iterator[None]:
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
