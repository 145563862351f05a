"""Where runs go and what is said there: URIs, what cannot answer, flat and masked values."""

import contextlib
import shlex
import socket
import sqlite3
import threading
from pathlib import Path

import pytest

from distill.config import Tracking, parse
from distill.errors import UnreachableError
from distill.tracking import check_reachable, flatten, masked, open_command, resolve_uri
from distill.tracking.store import environment, free_port


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


HANGS_S = 1500
"""A deadline that ends only what hangs."""


def test_an_unreachable_server_is_refused():
    port = closed_port()
    with pytest.raises(UnreachableError) as refusal:
        check_reachable(Tracking(uri=f"http://me:hunter2@127.0.0.1:{port}"), HANGS_S)
    message = str(refusal.value)
    assert f"tracking.uri http://***@127.0.0.1:{port}" in message
    assert "hunter2" not in message
    assert "Connection refused" in message
    assert "use sqlite:///mlflow.db" in message


def test_a_server_that_fails_is_asked_once():
    """MLflow itself would try for minutes."""
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            with contextlib.suppress(OSError):  # closed at the end
                while True:
                    connection, _ = listener.accept()
                    asked.append(connection.recv(1 << 16))
                    connection.close()

        threading.Thread(target=hang_up, daemon=True).start()
        with pytest.raises(UnreachableError):
            check_reachable(Tracking(uri=f"http://127.0.0.1:{listener.getsockname()[1]}"), HANGS_S)
    assert len(asked) == 1


def test_a_silent_server_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as listener:  # connects, never answers
        server = Tracking(uri=f"http://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(UnreachableError, match=r"no response in 0\.5 s"):
            check_reachable(server, timeout_s=0.5)


def test_unusable_databases_are_refused(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "good.db")) as connection:
        connection.execute("CREATE TABLE runs (id)")
    check_reachable(Tracking(uri=f"sqlite:///{tmp_path}/good.db"))
    check_reachable(Tracking(uri=f"sqlite:///{tmp_path}/new/folder/mlflow.db"))
    assert not (tmp_path / "new").exists()  # checking creates nothing
    with contextlib.closing(sqlite3.connect(tmp_path / "good.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UnreachableError, match="locked"):
            check_reachable(Tracking(uri=f"sqlite:///{tmp_path}/good.db"), timeout_s=0.1)
    (tmp_path / "file").write_text("not a database, and long enough to be read as one" * 20)
    for bad in (tmp_path / "file", tmp_path / "file" / "mlflow.db", tmp_path):
        with pytest.raises(UnreachableError, match=r"tracking\.uri sqlite:///"):
            check_reachable(Tracking(uri=f"sqlite:///{bad}"))
    with pytest.raises(UnreachableError, match=r"sqlite:///mlflow\.db"):
        check_reachable(Tracking(uri=str(tmp_path / "mlruns")))


def test_the_uri_is_the_key_then_the_variable_then_sqlite(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert resolve_uri(Tracking()) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert resolve_uri(Tracking()) == "http://host:5000"
    assert resolve_uri(Tracking(uri="sqlite:///a/b.db")) == f"sqlite:///{tmp_path}/a/b.db"


def test_the_lines_that_open_the_runs():
    command, runs, charts = open_command(
        "sqlite:////runs/my runs/mlflow.db", "7", 5017
    ).splitlines()
    assert command.endswith(
        "mlflow server --backend-store-uri 'sqlite:////runs/my runs/mlflow.db' "
        "--host 127.0.0.1 --port 5017"
    )
    page = "/#/experiments/7/runs?viewStateShareKey=distill&workflowType=machine_learning"
    assert runs == f"http://127.0.0.1:5017{page}"
    assert charts == f"{runs}&compareRunsMode=CHART"
    # a server that runs already: links that open, without its password
    runs, charts = open_command("https://me:pw@host/", "7").splitlines()
    assert runs == f"https://host{page}"


def test_the_command_names_a_port_that_is_free():
    first = closed_port()
    with socket.create_server(("127.0.0.1", first)):
        assert free_port(first) > first
    assert free_port(first) == first


def test_the_command_is_that_of_this_environment(tmp_path):
    """Copied into another shell, where the environment may not be active."""
    with environment({"PATH": str(tmp_path)}):
        command = open_command("sqlite:////x.db", "1", 5000).split(" server ")[0]
    assert Path(shlex.split(command)[0]).is_absolute()


def test_an_experiment_becomes_flat_parameters():
    experiment = parse(
        {
            "data": {"path": ["a.parquet", "b.parquet"]},
            "output": "out",
            "teachers": [{"name": "t1", "path": "p1"}, {"name": "t2", "path": "p2"}],
        }
    )
    flat = flatten(experiment)
    assert flat["data.path"] == "a.parquet, b.parquet"
    assert flat["teachers.1.name"] == "t2"
    assert flat["teachers.0.max_batch_tokens"] == 16384  # "tokens" is no secret
    assert flat["optimizer.lr"] == 1e-3
    assert flat["optimizer.betas"] == "0.9, 0.999"
    assert flat["student.tokenizer"] == "null"
    assert flat["tracking.log_model"] == "true"


def test_long_values_are_cut_visibly():
    value = flatten({"note": "x" * 10_000})["note"]
    assert isinstance(value, str)
    assert len(value) == 6000
    assert value.endswith("… (truncated)")


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("api_key", "abc", "***"),
        ("s3.secret", "abc", "***"),
        ("hub.token", "abc", "***"),
        ("tracking.uri", "https://me:p@ss@host/x", "https://***@host/x"),
        ("data.path", "https://host/x?token=abc&part=1", "https://host/x?token=***&part=1"),
        ("data.path", "s3://bucket/x?aws_secret_access_key=abc", None),
        ("note", "hf_" + "a" * 30, "***"),
        ("student.tokenizer", "bert", "bert"),
        ("data.path", "s3://bucket/folder@2", "s3://bucket/folder@2"),
    ],
)
def test_secrets_are_masked(key, value, shown):
    expected = shown or "s3://bucket/x?aws_secret_access_key=***"
    assert flatten({key: value}) == {key: expected}


def test_masking_leaves_plain_text_alone():
    for text in ("sqlite:////runs/mlflow.db", "http://host:5000/a@b", "lr=0.1 seed=3"):
        assert masked(text) == text


def test_a_secret_with_slashes_is_masked() -> None:
    assert masked("s3://AKIA12:se/cret@bucket/a") == "s3://***@bucket/a"
